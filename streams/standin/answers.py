"""What the stand-in says: replies in the documented wire format, the same for the same text. Pure."""

import hashlib
from typing import Any

import msgspec
import orjson

from agents.local.analyser import LocalInsights
from schemas.insight import Insight
from streams.standin.faults import FaultKind

#: USD per million tokens times 10^10 ticks: input 1.25, cached input 0.20, output 2.50, the list prices of grok-4.3.
_TICKS_PER_TOKEN = {"prompt": 12_500, "cached": 2_000, "completion": 25_000}
_CHARS_PER_TOKEN = 4
_CREATED = 1_790_000_000


class Completion(msgspec.Struct, frozen=True):
    """A reply's body and the cost it names."""

    body: bytes
    cost_usd_ticks: int


class Answerer:
    """Makes replies by the local analyser's rules, so that they are plausible and cheap."""

    def __init__(self) -> None:
        self._insights = LocalInsights()

    def completion(self, system: str, text: str, model: str, fault: FaultKind | None) -> Completion:
        """A `chat.completion` with the faults that lie in its content; all others leave it a good one."""
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
        answer = _answer(self._insights.insight(text), digest)
        if fault is FaultKind.BAD_SCHEMA:
            answer |= {"sentiment": "furious", "confidence": 7}
        return orjson.dumps(answer).decode()


def _answer(insight: Insight, digest: bytes) -> dict[str, Any]:
    fields = {name: getattr(insight, name) for name in insight.__struct_fields__ if name != "extra"}
    return fields | {"confidence": round(0.6 + digest[0] / 640, 3)}


def _choice(content: str, fault: FaultKind | None) -> dict[str, Any]:
    refused = fault is FaultKind.REFUSAL
    message = {
        "role": "assistant",
        "content": None if refused else content,
        "refusal": "I cannot help with this." if refused else None,
    }
    return {"index": 0, "message": message, "finish_reason": "stop"}


def _usage(system: str, text: str, digest: bytes) -> dict[str, Any]:
    """As documented, traps included: reasoning tokens count in the total only, cached ones within the prompt."""
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
