"""Chooses the fault that the stand-in injects into a call: by rate, or by a marker in the text.

Pure: takes the random function as an argument.
"""

from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

import msgspec

Rate = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=3600)]


class FaultKind(StrEnum):
    """Every way in which a call can fail. Calls that fail without an error status are billed."""

    HTTP_429 = "http_429"  # with Retry-After
    HTTP_500 = "http_500"
    VIOLATION_403 = "violation_403"  # the safety check refused the text
    HANG = "hang"  # answers only after `hang_s` more, or when the plan is replaced
    RESET = "reset"  # the connection is reset before the reply
    RESET_MID_BODY = "reset_mid_body"  # half a reply, then the connection is reset
    SLOW_BODY = "slow_body"  # the reply takes `slow_body_s`, in small pieces
    BAD_JSON = "bad_json"  # the answer is not JSON
    BAD_SCHEMA = "bad_schema"  # the answer is JSON that violates the schema
    REFUSAL = "refusal"
    NO_USAGE = "no_usage"  # a valid answer without tokens and cost


class Marker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Injects the fault into the first `times` calls whose text contains `text`, or into all when that is None."""

    text: Annotated[str, msgspec.Meta(min_length=1)]
    kind: FaultKind
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None


class FaultPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shares of all calls by fault, together at most 1, and marked texts, which take precedence."""

    rates: dict[FaultKind, Rate] = {}
    markers: tuple[Marker, ...] = ()
    retry_after_s: Annotated[int, msgspec.Meta(ge=0)] = 1
    hang_s: Seconds = 120
    slow_body_s: Seconds = 2

    def hangs(self, text: str) -> bool:
        """Whether a call with this text may hang, by a marker or by rate."""
        is_marked = any(marker.kind is FaultKind.HANG and marker.text in text for marker in self.markers)
        return is_marked or self.rates.get(FaultKind.HANG, 0) > 0

    def __post_init__(self) -> None:
        if sum(self.rates.values()) > 1 + 1e-9:
            raise ValueError("the rates add up to more than 1")


class FaultChooser:
    """Applies a plan and counts how often each marker was met."""

    def __init__(self, plan: FaultPlan, random: Callable[[], float]) -> None:
        self.plan = plan
        self._random = random
        self._met: Counter[Marker] = Counter()

    def choose(self, text: str) -> FaultKind | None:
        """Returns the fault for one call with this text, or None to answer it normally."""
        for marker in self.plan.markers:
            if marker.text in text and (marker.times is None or self._met[marker] < marker.times):
                self._met[marker] += 1
                return marker.kind
        return self._by_rate() if self.plan.rates else None

    def _by_rate(self) -> FaultKind | None:
        drawn = self._random()
        for kind, rate in self.plan.rates.items():
            drawn -= rate
            if drawn < 0:
                return kind
        return None
