"""The sample of infra/sample: requests as the gateway takes them, with their ids."""

from dataclasses import dataclass

from schemas.conversation import decode_conversation
from schemas.errors import Fatal, Rejected
from streams.resources import infra

_FILE = "sample.jsonl"


@dataclass(frozen=True, slots=True)
class Request:
    """One conversation to post; `body` is JSON."""

    id: str
    body: bytes


def read_sample(limit: int | None = None) -> list[Request]:
    """The first `limit` requests, all of them by default. Raises Fatal when the sample is missing or damaged."""
    try:
        lines = (infra("sample") / _FILE).read_bytes().splitlines()
    except OSError as error:
        raise Fatal("the sample of the demo cannot be read", str(error), "install grok-insights again") from error
    return [_request(line, number) for number, line in enumerate(lines[:limit], start=1)]


def _request(line: bytes, number: int) -> Request:
    try:
        conversation_id = decode_conversation(line, require_id=True).id
    except Rejected as error:
        raise Fatal(f"line {number} of {_FILE} is no conversation", str(error)) from error
    assert conversation_id is not None, "decode_conversation saw to it"
    return Request(conversation_id, line)
