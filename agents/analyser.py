"""Analyser: turns a text into an answer. CallObserver: is notified of every call it makes."""

from collections.abc import Callable
from typing import Literal, Protocol

from schemas.call import UnansweredCall
from schemas.insight import Answer, Usage

ErrorClass = Literal[
    "timeout", "connection", "rate_limited", "server", "client", "auth", "bad_answer", "breaker_open", "cancelled"
]

NOTHING = Usage()

#: Is notified of a call that may have cost something and gave no answer; must neither wait nor raise.
OnUnanswered = Callable[[UnansweredCall], None]


def ignore_call(call: UnansweredCall) -> None:
    """Does nothing, for callers that keep no account of calls."""


class Analyser(Protocol):
    """Turns one canonical text into an Answer."""

    @property
    def version(self) -> str:
        """Analysis version: changes with system prompt, answer schema or model; older answers are not served then."""

    @property
    def is_paid(self) -> bool:
        """Whether its answers come from a provider that is paid for each call."""

    async def analyse(self, text: str, on_unanswered: OnUnanswered = ignore_call) -> Answer:
        """Raises Retryable (same text later), Unprocessable (dead letter) or Fatal (a wrong key, no such model)."""


class CallObserver(Protocol):
    """Is notified of every call to a provider; must neither wait nor raise."""

    def call_succeeded(self, latency_s: float, usage: Usage) -> None:
        """A reply came and passed the check."""

    def call_failed(
        self, error_class: ErrorClass, latency_s: float, *, ambiguous: bool, usage: Usage = NOTHING
    ) -> None:
        """No usable reply; `usage` is what a bad one cost all the same.

        `ambiguous` when the provider may have billed although no reply came. "breaker_open" is a call that was never
        sent, "cancelled" one that our side gave up.
        """

    def breaker_changed(self, state: Literal["closed", "half_open", "open"]) -> None:
        """The circuit breaker went to another state."""
