"""Bytes of a 200 reply -> Insight, Usage and model, or a named error. What a model wrote is not trusted: types, enums,
ranges, sizes and characters are checked here, before anything can reach a database."""

import json
import math
import re
from typing import Annotated, Any, NamedTuple, NoReturn

import msgspec
import orjson

from schemas.dead_letter import DeadLetterReason
from schemas.errors import InsightsError, Unprocessable
from schemas.insight import (
    MAX_INTENT_CHARS,
    MAX_LANGUAGE_CHARS,
    MAX_SUMMARY_CHARS,
    MAX_TOPIC_CHARS,
    MAX_TOPICS,
    USD_TICKS,
    Insight,
    Sentiment,
    Urgency,
    Usage,
)

MAX_EXTRA_BYTES = 8 * 1024
_MAX_DEPTH = 16
_MAX_MODEL_CHARS = 128
#: Postgres' bigint, which holds tokens and cost.
_MAX_COUNT = 2**63 - 1
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


class BadAnswer(InsightsError):
    """A reply came, but not an answer by the schema; `usage` is what it cost all the same. Never quotes the answer."""

    def __init__(self, detail: str, usage: Usage = Usage()) -> None:  # noqa: B008 - frozen
        super().__init__(detail)
        self.detail = detail
        self.usage = usage


class UnreadableReply(BadAnswer):
    """Not even a reply of the documented form, such as a proxy's page: rather the provider's state than this text's."""


class Reply(NamedTuple):
    """A checked answer; `model` is the one that the reply names."""

    insight: Insight
    usage: Usage
    model: str


class _Answer(msgspec.Struct, frozen=True):
    sentiment: Sentiment
    sentiment_score: Annotated[float, msgspec.Meta(ge=-1, le=1)]
    topics: list[str]
    intent: str
    urgency: Urgency
    summary: str
    action_needed: bool
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)]
    language: str


def read_reply(body: bytes, cost_per_1k_usd: float | None = None) -> Reply:
    """Checked answer; over-long texts are cut to the limits in schemas.insight.

    Raises UnreadableReply, BadAnswer, or Unprocessable with reason `refused` where the provider will not analyse this
    text. `cost_per_1k_usd` is USD per 1,000 tokens, for replies that name no cost.
    """
    reply = _object(_loads(body))
    if reply is None:
        raise UnreadableReply("the reply is no JSON object")
    usage = _usage(_object(reply.get("usage")) or {}, cost_per_1k_usd)
    insight = _insight(_content(reply, usage), usage)
    model = reply.get("model")
    return Reply(insight, usage, _clean_string(model)[:_MAX_MODEL_CHARS] if isinstance(model, str) else "")


def _content(reply: dict[str, Any], usage: Usage) -> str:
    choices = reply.get("choices")
    choice = _object(choices[0]) if isinstance(choices, list) and choices else None
    message = _object(choice.get("message")) if choice else None
    if choice is None or message is None:
        raise UnreadableReply("the reply holds no choices[0].message", usage)
    if message.get("refusal") or choice.get("finish_reason") == "content_filter":
        raise Unprocessable(DeadLetterReason.REFUSED, "the provider will not analyse this text")
    if choice.get("finish_reason") == "length":
        raise BadAnswer("the answer was cut off at the provider's length limit", usage)
    content = message.get("content")
    if not isinstance(content, str):
        raise BadAnswer("the message has no text content", usage)
    return content


def _insight(content: str, usage: Usage) -> Insight:
    answer = _object(_loads(content))
    if answer is None:
        raise BadAnswer("the answer is no JSON object", usage)
    try:
        fields = _clean(answer, _MAX_DEPTH)
        checked = msgspec.convert(fields, _Answer)
    except msgspec.ValidationError as error:
        # The message would quote the answer; the path names fields only.
        path = str(error).partition(" - at `$")[2].rstrip("`").lstrip(".")
        raise BadAnswer(f"the answer breaks the schema at {path or 'its fields'}", usage) from error
    except RecursionError as error:
        raise BadAnswer(f"values in the answer are nested more than {_MAX_DEPTH} deep", usage) from error
    extra = {name: value for name, value in fields.items() if name not in _Answer.__struct_fields__}
    if extra and len(orjson.dumps(extra)) > MAX_EXTRA_BYTES:
        raise BadAnswer(f"the answer's extra fields are larger than {MAX_EXTRA_BYTES} bytes", usage)
    return _cut(checked, extra)


def _cut(answer: _Answer, extra: dict[str, Any]) -> Insight:
    topics = dict.fromkeys(topic.strip()[:MAX_TOPIC_CHARS] for topic in answer.topics if topic.strip())
    return Insight(
        sentiment=answer.sentiment,
        sentiment_score=answer.sentiment_score,
        topics=tuple(topics)[:MAX_TOPICS],
        intent=answer.intent.strip()[:MAX_INTENT_CHARS],
        urgency=answer.urgency,
        summary=answer.summary.strip()[:MAX_SUMMARY_CHARS],
        action_needed=answer.action_needed,
        confidence=answer.confidence,
        language=answer.language.strip()[:MAX_LANGUAGE_CHARS] or "und",
        extra=extra,
    )


def _usage(usage: dict[str, Any], cost_per_1k_usd: float | None) -> Usage:
    """`completion_tokens` leaves out reasoning, which is billed: the total minus the prompt holds it."""
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    details = _object(usage.get("completion_tokens_details")) or {}
    total = _count(usage.get("total_tokens")) or prompt + completion + _count(details.get("reasoning_tokens"))
    completion = max(total - prompt, 0)
    ticks = usage.get("cost_in_usd_ticks")
    if not isinstance(ticks, int | float) or isinstance(ticks, bool):
        ticks = round((cost_per_1k_usd or 0.0) * (prompt + completion) / 1000 * USD_TICKS)
    return Usage(prompt, completion, _count(ticks))


def _count(value: object) -> int:
    """A count as the provider means it; anything else is 0, since a good answer is not lost for its statistics."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0
    return min(max(round(value), 0), _MAX_COUNT)


def _object(value: object) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


def _loads(data: bytes | str) -> Any:
    """The JSON value, or None. The slow parser is there for lone surrogates, which the fast one refuses."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        text = data.decode(errors="replace") if isinstance(data, bytes) else data
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def _clean(value: Any, depth: int) -> Any:
    """The value with nothing in it that Postgres or a JSON encoder refuses. Raises RecursionError beyond `depth`."""
    if depth < 0:
        raise RecursionError
    if isinstance(value, str):
        return _clean_string(value)
    if isinstance(value, dict):
        return {_clean_string(name): _clean(child, depth - 1) for name, child in value.items()}
    if isinstance(value, list):
        return [_clean(child, depth - 1) for child in value]
    return None if isinstance(value, int | float) and not _is_storable(value) else value


def _clean_string(text: str) -> str:
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _is_storable(number: float) -> bool:
    return abs(number) <= _MAX_COUNT if isinstance(number, int) else math.isfinite(number)
