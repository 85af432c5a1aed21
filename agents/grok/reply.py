"""Reads a 200 reply into Insight, Usage and model, or raises a named error.

What a model wrote is not trusted: types, enums, ranges, sizes and characters are checked here, before anything can
reach a database.
"""

import json
import math
import re
import string
from typing import Annotated, Any, Literal, NamedTuple, NoReturn

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
    Urgency,
    Usage,
)

MAX_EXTRA_BYTES = 8 * 1024
_MAX_DEPTH = 16
_MAX_MODEL_CHARS = 128
#: The maximum of Postgres' bigint, the type of the columns for tokens and cost.
_MAX_COUNT = 2**63 - 1
_FENCE = "```"
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


class BadAnswer(InsightsError):
    """The reply holds no answer that follows the schema.

    `usage` is what the reply cost all the same. The detail never quotes the answer, which may hold conversation text.
    """

    def __init__(self, detail: str, usage: Usage = Usage()) -> None:  # noqa: B008 - frozen
        super().__init__(detail)
        self.detail = detail
        self.usage = usage


class Refused(Unprocessable):
    """The provider will not analyse this text. `usage` is what it bills for saying so."""

    def __init__(self, usage: Usage) -> None:
        super().__init__(DeadLetterReason.REFUSED, "the provider will not analyse this text")
        self.usage = usage


class UnreadableReply(BadAnswer):
    """The reply does not have the documented form; it may be a proxy's error page.

    It says something about the provider's state, not about the text.
    """


class Reply(NamedTuple):
    """A checked answer; `model` is the one named in the reply, or ""."""

    insight: Insight
    usage: Usage
    model: str


class _Answer(msgspec.Struct, frozen=True):
    #: Without `undetermined`, which is not for models that know all languages; see agents.grok.prompt.
    sentiment: Literal["negative", "neutral", "positive", "mixed"]
    sentiment_score: Annotated[float, msgspec.Meta(ge=-1, le=1)]
    topics: list[str]
    intent: str
    urgency: Urgency
    summary: str
    action_needed: bool
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)]
    language: str


class _PlainAnswer(_Answer, frozen=True, forbid_unknown_fields=True):
    """An answer without extra fields."""


_Count = Annotated[int, msgspec.Meta(ge=0, le=_MAX_COUNT)]


class _PlainMessage(msgspec.Struct, frozen=True):
    content: str
    refusal: str | None = None


class _PlainChoice(msgspec.Struct, frozen=True):
    message: _PlainMessage
    finish_reason: Literal["stop"]


class _PlainUsage(msgspec.Struct, frozen=True):
    prompt_tokens: _Count
    total_tokens: _Count
    cost_in_usd_ticks: _Count


class _PlainReply(msgspec.Struct, frozen=True):
    choices: Annotated[list[_PlainChoice], msgspec.Meta(min_length=1)]
    usage: _PlainUsage
    model: str


_plain_reply_decoder = msgspec.json.Decoder(_PlainReply)
_plain_answer_decoder = msgspec.json.Decoder(_PlainAnswer)


def read_reply(body: bytes, cost_per_1k_usd: float | None = None) -> Reply:
    """Returns the checked answer, with over-long texts cut to the limits in schemas.insight.

    Raises UnreadableReply, BadAnswer, or Unprocessable with reason `refused` where the provider will not analyse this
    text. `cost_per_1k_usd` is USD per 1,000 tokens, for replies that name no cost.
    """
    return read_quickly(body) or read_carefully(body, cost_per_1k_usd)


def read_quickly(body: bytes) -> Reply | None:
    """Returns what `read_carefully` would for the usual reply, in a quarter of the time; else None.

    The usual reply needs no repair and no price estimate, and its answer has no extra fields.
    """
    try:
        reply = _plain_reply_decoder.decode(body)
        choice, usage = reply.choices[0], reply.usage
        content = choice.message.content
        if choice.message.refusal or "\\u0000" in content or not 0 < usage.total_tokens >= usage.prompt_tokens:
            return None
        answer = _plain_answer_decoder.decode(content)
    except (ValueError, RecursionError):  # msgspec's errors, and UnicodeEncodeError for a lone surrogate
        return None
    spent = Usage(usage.prompt_tokens, usage.total_tokens - usage.prompt_tokens, usage.cost_in_usd_ticks)
    return Reply(_cut(answer, {}), spent, _model_name(reply.model))


def read_carefully(body: bytes, cost_per_1k_usd: float | None) -> Reply:
    """Defines what `read_reply` returns and raises for any bytes."""
    reply = _object(_loads(body))
    if reply is None:
        raise UnreadableReply("the reply is not a JSON object")
    usage = _usage(_object(reply.get("usage")) or {}, cost_per_1k_usd)
    insight = _insight(_content(reply, usage), usage)
    model = reply.get("model")
    return Reply(insight, usage, _model_name(model) if isinstance(model, str) else "")


def _model_name(model: str) -> str:
    return _clean_string(model)[:_MAX_MODEL_CHARS]


def _content(reply: dict[str, Any], usage: Usage) -> str:
    choices = reply.get("choices")
    choice = _object(choices[0]) if isinstance(choices, list) and choices else None
    message = _object(choice.get("message")) if choice else None
    if choice is None or message is None:
        raise UnreadableReply("the reply holds no choices[0].message", usage)
    if message.get("refusal") or choice.get("finish_reason") == "content_filter":
        raise Refused(usage)
    if choice.get("finish_reason") == "length":
        raise BadAnswer("the answer was cut off at the provider's length limit", usage)
    content = message.get("content")
    if isinstance(content, list):
        content = _joined(content)
    if not isinstance(content, str):
        raise BadAnswer("the message has no text content", usage)
    return content


def _joined(parts: list[Any]) -> str | None:
    """The text of content that comes in parts, as compatible servers send it."""
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    strings = [text for text in texts if isinstance(text, str)]
    return "".join(strings) if strings else None


def _insight(content: str, usage: Usage) -> Insight:
    answer = _object(_loads(content))
    if answer is None:
        answer = _object(_loads(_unfenced(content)))
    if answer is None:
        raise BadAnswer("the answer is not a JSON object", usage)
    try:
        fields = _clean(answer, _MAX_DEPTH)
        checked = _checked(fields)
    except msgspec.ValidationError as error:
        # The message may quote the answer; the path only names fields.
        path = str(error).partition(" - at `$")[2].rstrip("`").lstrip(".")
        raise BadAnswer(f"the answer breaks the schema at {path or 'its fields'}", usage) from error
    except RecursionError as error:
        raise BadAnswer(f"values in the answer are nested more than {_MAX_DEPTH} deep", usage) from error
    extra = {name: value for name, value in fields.items() if name not in _Answer.__struct_fields__}
    if extra and len(orjson.dumps(extra)) > MAX_EXTRA_BYTES:
        raise BadAnswer(f"the answer's extra fields are larger than {MAX_EXTRA_BYTES} bytes", usage)
    return _cut(checked, extra)


def _unfenced(content: str) -> str:
    """The inside of a code fence, without the name of its language; "" where the content is not one."""
    text = content.strip()
    is_fence = text.startswith(_FENCE) and text.endswith(_FENCE)
    return text[len(_FENCE) : -len(_FENCE)].lstrip(string.ascii_letters) if is_fence else ""


def _checked(fields: dict[str, Any]) -> _Answer:
    """Raises ValidationError for fields that cannot be read: "0.9" and "Negative" are, since the call was paid for."""
    try:
        return msgspec.convert(fields, _Answer)
    except msgspec.ValidationError:
        if not isinstance(fields.get("action_needed"), bool | str):
            raise
        read = {name: value.strip() if isinstance(value, str) else value for name, value in fields.items()}
        for name in ("sentiment", "urgency"):
            if isinstance(read.get(name), str):
                read[name] = read[name].lower()
        return msgspec.convert(read, _Answer, strict=False)


def _cut(answer: _Answer, extra: dict[str, Any]) -> Insight:
    topics = {topic.strip()[:MAX_TOPIC_CHARS]: None for topic in answer.topics}
    topics.pop("", None)
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
    """Returns the billed usage: `completion_tokens` excludes reasoning, so it is computed from the total."""
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    details = _object(usage.get("completion_tokens_details")) or {}
    total = _count(usage.get("total_tokens")) or prompt + completion + _count(details.get("reasoning_tokens"))
    completion = max(total - prompt, 0)
    ticks = usage.get("cost_in_usd_ticks")
    if not isinstance(ticks, int | float) or isinstance(ticks, bool):
        ticks = round((cost_per_1k_usd or 0.0) * (prompt + completion) / 1000 * USD_TICKS)
    return Usage(prompt, completion, _count(ticks))


def _count(value: object) -> int:
    """Returns the count within bigint's range, 0 if it is not a number: no answer is lost for its counts."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    if isinstance(value, float):
        value = round(value) if math.isfinite(value) else 0
    return min(max(value, 0), _MAX_COUNT)


def _object(value: object) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


def _loads(data: bytes | str) -> Any:
    """Returns the JSON value, or None. Python's slower parser reads lone surrogates, which orjson refuses.

    A byte order mark is skipped.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        text = data.decode(errors="replace") if isinstance(data, bytes) else data
    try:
        return json.loads(text.removeprefix("\ufeff"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def _clean(value: Any, depth: int) -> Any:
    """Replaces what Postgres or a JSON encoder would refuse. Raises RecursionError beyond `depth`."""
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
