"""Checks requests as the provider does, and makes replies in its documented format. Pure and fast: it runs no model."""

import hashlib
import re
from functools import lru_cache
from typing import Any

import msgspec
import orjson
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from schemas.errors import Rejected
from schemas.insight import MAX_TOPICS, Sentiment, Urgency
from streams.dev.standin.faults import FaultKind

#: USD per million tokens times 10^10 ticks: input 1.25, cached input 0.20, output 2.50, the list prices of grok-4.3.
_TICKS_PER_TOKEN = {"prompt": 12_500, "cached": 2_000, "completion": 25_000}
_CHARS_PER_TOKEN = 4
_CREATED = 1_790_000_000

#: Bounds the time for one answer.
_MAX_READ_CHARS = 200
_MAX_SUMMARY_CHARS = 120
_WORD = re.compile(r"[a-z]+")
#: Topic, intent, urgency and the words that indicate them; the first match decides intent and urgency.
_RULES: tuple[tuple[str, str, Urgency, str], ...] = (
    ("security", "report_fraud", "critical", "fraud fraudulent scam hacked stolen"),
    ("outage", "report_problem", "high", "outage offline unavailable"),
    ("urgent request", "report_problem", "high", "urgent urgently asap immediately"),
    ("refund", "request_refund", "medium", "refund refunds refunded reimburse"),
    ("cancellation", "cancel", "medium", "cancel cancelled unsubscribe terminate"),
    ("technical problem", "report_problem", "medium", "problem issue error broken crash crashed failed bug"),
    ("booking", "make_booking", "low", "book booking reserve reservation flight hotel appointment"),
    ("delivery", "ask_status", "low", "delivery delivered shipping shipped package parcel tracking"),
    ("order", "place_order", "low", "order orders ordered buy purchase"),
    ("account", "ask_question", "low", "account password login username subscription"),
    ("billing", "ask_question", "low", "bill billing invoice charge charged fee payment price"),
)
_RULE_OF_WORD = {word: number for number, (*_, words) in enumerate(_RULES) for word in words.split()}


class _Message(msgspec.Struct, frozen=True):
    role: str
    content: str


class _ResponseFormat(msgspec.Struct, frozen=True):
    type: str
    json_schema: dict[str, msgspec.Raw]


class _Body(msgspec.Struct, frozen=True):
    model: str
    messages: tuple[_Message, ...]
    response_format: _ResponseFormat


class Question(msgspec.Struct, frozen=True):
    """A valid request; `system` is the system prompt, `text` the user's message."""

    model: str
    system: str
    text: str


_decoder = msgspec.json.Decoder(_Body)


@lru_cache(maxsize=1024)
def check_key(authorization: str | None, expected: str | None) -> str:
    """Returns the caller: a short hash of the key, which tells callers apart without disclosing their keys.

    Raises Rejected: 401 without a bearer key, 400 with a wrong one. Without `expected` any key is valid.
    """
    scheme, _, key = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Rejected("unauthenticated", "No API key was provided.", status=401)
    if expected is not None and key.strip() != expected:
        raise Rejected("invalid_argument", "Incorrect API key provided.", status=400)
    return hashlib.sha256(key.strip().encode()).hexdigest()[:8]


def read_question(body: bytes, models: tuple[str, ...]) -> Question:
    """Raises Rejected: 400 for invalid JSON, 422 for a wrong structure, 404 for a model that is not in `models`."""
    try:
        asked = _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Rejected("unprocessable", str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Rejected("invalid_argument", "The body is not JSON.", status=400) from error
    _check_model(asked.model, models)
    if [message.role for message in asked.messages] != ["system", "user"]:
        raise Rejected("unprocessable", "messages must be one of system, then one of user.")
    if asked.response_format.type != "json_schema" or "schema" not in asked.response_format.json_schema:
        raise Rejected("unprocessable", "response_format must be of type json_schema and hold a schema.")
    return Question(asked.model, asked.messages[0].content, asked.messages[1].content)


def describe_models(models: tuple[str, ...]) -> dict[str, Any]:
    """The body of `GET /models`."""
    return {"data": [describe_model(model, models) for model in models], "object": "list"}


def describe_model(model: str, models: tuple[str, ...]) -> dict[str, Any]:
    """The body of `GET /models/{model}`. Raises Rejected: 404 for a model that is not in `models`."""
    _check_model(model, models)
    return {"id": model, "created": _CREATED, "object": "model", "owned_by": "xai"}


def _check_model(model: str, models: tuple[str, ...]) -> None:
    if models and model not in models:
        raise Rejected("not_found", f"The model {model} does not exist.", status=404)


class Completion(msgspec.Struct, frozen=True):
    """The body of a reply and the cost stated in it."""

    body: bytes
    cost_usd_ticks: int


class Answerer:
    """Makes plausible replies from a few words of the text; the same text always gets the same reply."""

    def __init__(self) -> None:
        lexicon: dict[str, float] = SentimentIntensityAnalyzer().lexicon
        self._valence = lexicon.get

    def completion(self, system: str, text: str, model: str, fault: FaultKind | None) -> Completion:
        """Returns a `chat.completion`, with the fault if it is one of the content."""
        digest = hashlib.sha256(text.encode()).digest()
        usage = _usage(system, text, digest)
        body: dict[str, Any] = {
            "id": digest[:16].hex(),
            "object": "chat.completion",
            "created": _CREATED,
            "model": model,
            "choices": [_choice(self._content(text, digest, fault), fault)],
            "usage": usage,
            "system_fingerprint": "fp_standin",
        }
        if fault is FaultKind.NO_USAGE:
            del body["usage"]
        return Completion(orjson.dumps(body), usage["cost_in_usd_ticks"])

    def _content(self, text: str, digest: bytes, fault: FaultKind | None) -> str:
        if fault is FaultKind.BAD_JSON:
            return "Here is the analysis you asked for: sentiment is"
        answer = self._answer(text, digest)
        if fault is FaultKind.BAD_SCHEMA:
            answer |= {"sentiment": "furious", "confidence": 7}
        return orjson.dumps(answer).decode()

    def _answer(self, text: str, digest: bytes) -> dict[str, Any]:
        words = _WORD.findall(text[:_MAX_READ_CHARS].lower())
        valences = [valence for word in words if (valence := self._valence(word))]
        rules = sorted({_RULE_OF_WORD[word] for word in words if word in _RULE_OF_WORD})
        fallback = "ask_question" if "?" in text else "inform"
        _, intent, urgency, _ = _RULES[rules[0]] if rules else ("", fallback, "low", "")
        sentiment, score = _sentiment(valences)
        return {
            "sentiment": sentiment,
            "sentiment_score": score,
            "topics": [_RULES[rule][0] for rule in rules[:MAX_TOPICS]],
            "intent": intent,
            "urgency": urgency,
            "summary": _summary(text),
            "action_needed": intent != "inform",
            "confidence": round(0.6 + digest[0] / 640, 3),
            "language": "en" if words else "und",
        }


def _sentiment(valences: list[float]) -> tuple[Sentiment, float]:
    total = sum(valences)
    score = round(total / (total * total + 15) ** 0.5, 4)  # VADER's own normalisation
    if valences and min(valences) < -1.5 and max(valences) > 1.5:
        return "mixed", score
    if abs(score) < 0.05:
        return "neutral", score
    return ("positive" if score > 0 else "negative"), score


def _summary(text: str) -> str:
    """Returns the beginning of the user's first message, or of the text where no message is the user's."""
    _, _, message = text.partition("user: ")
    return (message or text).partition("\n")[0][:_MAX_SUMMARY_CHARS]


def _choice(content: str, fault: FaultKind | None) -> dict[str, Any]:
    is_refused = fault is FaultKind.REFUSAL
    message = {
        "role": "assistant",
        "content": None if is_refused else content,
        "refusal": "I cannot help with this." if is_refused else None,
    }
    return {"index": 0, "message": message, "finish_reason": "stop"}


def _usage(system: str, text: str, digest: bytes) -> dict[str, Any]:
    """As documented: reasoning tokens count in the total only, cached tokens are part of the prompt's."""
    cached = len(system) // _CHARS_PER_TOKEN if digest[1] % 4 else 0
    prompt = (len(system) + len(text)) // _CHARS_PER_TOKEN + 1
    completion, reasoning = 60 + digest[2] % 40, digest[3] % 100
    ticks = (prompt - cached) * _TICKS_PER_TOKEN["prompt"] + cached * _TICKS_PER_TOKEN["cached"]
    ticks += (completion + reasoning) * _TICKS_PER_TOKEN["completion"]
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion + reasoning,
        "prompt_tokens_details": {"text_tokens": prompt, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": 0},
        "num_sources_used": 0,
        "cost_in_usd_ticks": ticks,
    }
