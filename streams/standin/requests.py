"""Checks what the stand-in is asked, as the provider would: key, model, messages, response format. Pure."""

import hashlib
from typing import Any

import msgspec

from schemas.errors import Rejected


class _Message(msgspec.Struct, frozen=True):
    role: str
    content: str


class _ResponseFormat(msgspec.Struct, frozen=True):
    type: str
    json_schema: dict[str, Any]


class _Body(msgspec.Struct, frozen=True):
    model: str
    messages: tuple[_Message, ...]
    response_format: _ResponseFormat


class Question(msgspec.Struct, frozen=True):
    """A checked request: the system prompt, and the user's message as the text."""

    model: str
    system: str
    text: str


_decoder = msgspec.json.Decoder(_Body)


def check_key(authorization: str | None, expected: str | None) -> str:
    """The caller: a short fingerprint of the key, which tells clients apart and does not give the key away.

    Raises Rejected: 401 without a bearer key, 400 with a wrong one. Any key will do when none is expected.
    """
    scheme, _, key = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Rejected("unauthenticated", "No API key was provided.", status=401)
    if expected is not None and key.strip() != expected:
        raise Rejected("invalid_argument", "Incorrect API key provided.", status=400)
    return hashlib.sha256(key.strip().encode()).hexdigest()[:8]


def read_question(body: bytes, models: tuple[str, ...]) -> Question:
    """Raises Rejected: 400 for what is not JSON, 422 for a wrong shape, 404 for a model that is not in `models`."""
    try:
        asked = _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Rejected("unprocessable", str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Rejected("invalid_argument", "The body is not JSON.", status=400) from error
    if models and asked.model not in models:
        raise Rejected("not_found", f"The model {asked.model} does not exist.", status=404)
    if [message.role for message in asked.messages] != ["system", "user"]:
        raise Rejected("unprocessable", "messages must be one of system, then one of user.")
    if asked.response_format.type != "json_schema" or "schema" not in asked.response_format.json_schema:
        raise Rejected("unprocessable", "response_format must be of type json_schema and hold a schema.")
    return Question(asked.model, asked.messages[0].content, asked.messages[1].content)
