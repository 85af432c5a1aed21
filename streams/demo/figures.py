"""Figures of a run, from its rows and the counts of calls, and the checks that they must pass. Pure."""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from schemas.insight import USD_TICKS
from schemas.outcome import OUTCOME_NAMES, OutcomeName


@dataclass(frozen=True, slots=True)
class Row:
    """What the figures need of one row of `insights`; columns of the insight are None where there is none."""

    conversation_id: str
    outcome: OutcomeName
    reason: str | None
    received_at: datetime
    analysed_at: datetime
    text_key: str | None
    cost_usd_ticks: int

    @property
    def seconds(self) -> float:
        """From the gateway's receipt to the end of the analysis; writing the row comes after that."""
        return (self.analysed_at - self.received_at).total_seconds()

    @property
    def was_asked(self) -> bool:
        """Whether its text needed an answer, from a call or from an equal text's."""
        return self.outcome in ("analysed", "cached")


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls to the provider: as the stand-in saw them (None without one), and as the workers counted them."""

    by_standin: int | None
    by_workers: int


@dataclass(frozen=True, slots=True)
class Check:
    """Whether a promise held; `detail` says it in a sentence with the numbers."""

    name: Literal["sum", "rows", "calls"]
    held: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Figures:
    """`conversations` has all four outcomes; the seconds are those of conversations with an insight, None without."""

    taken_in: int
    conversations: dict[OutcomeName, int]
    filter_reasons: dict[str, int]
    calls: Calls
    distinct_texts: int
    cost_usd_ticks: int
    p50_s: float | None
    p95_s: float | None
    checks: tuple[Check, ...]

    @property
    def cost_usd(self) -> float:
        return self.cost_usd_ticks / USD_TICKS

    @property
    def add_up(self) -> bool:
        return all(check.held for check in self.checks)


def figures(posted: Collection[str], rows: Sequence[Row], calls: Calls) -> Figures:
    """`posted` are the ids that were answered 202, `rows` all that the database has."""
    outcomes = Counter(row.outcome for row in rows)
    conversations = {name: outcomes[name] for name in OUTCOME_NAMES}
    distinct_texts = len({row.text_key for row in rows if row.was_asked})
    seconds = sorted(row.seconds for row in rows if row.was_asked)
    checks = [_sum_holds(len(posted), conversations), _one_row_each(posted, rows)]
    if calls.by_standin is not None:
        checks.append(_one_call_each(calls.by_standin, distinct_texts))
    return Figures(
        taken_in=len(posted),
        conversations=conversations,
        filter_reasons=dict(Counter(row.reason or "" for row in rows if row.outcome == "filtered").most_common()),
        calls=calls,
        distinct_texts=distinct_texts,
        cost_usd_ticks=sum(row.cost_usd_ticks for row in rows),
        p50_s=percentile(seconds, 50),
        p95_s=percentile(seconds, 95),
        checks=tuple(checks),
    )


def percentile(ascending: Sequence[float], percent: float) -> float | None:
    """By nearest rank: the least value that `percent` of all do not exceed; None where there are no values."""
    if not ascending:
        return None
    return ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)]


def _sum_holds(taken_in: int, conversations: dict[OutcomeName, int]) -> Check:
    terms = " + ".join(f"{count} {name}" for name, count in conversations.items())
    held = taken_in == sum(conversations.values())
    return Check("sum", held, f"{taken_in} in {_equals(held)} {terms}")


def _one_row_each(posted: Collection[str], rows: Sequence[Row]) -> Check:
    """The table's key rules out two rows for one id."""
    wanted, found = set(posted), {row.conversation_id for row in rows}
    detail = f"rows of conversations: {len(wanted - found)} missing, {len(found - wanted)} never posted"
    return Check("rows", wanted == found, detail)


def _one_call_each(calls: int, distinct_texts: int) -> Check:
    held = calls == distinct_texts
    return Check("calls", held, f"{calls} calls {_equals(held)} {distinct_texts} distinct texts that needed an answer")


def _equals(held: bool) -> str:
    return "=" if held else "is not"
