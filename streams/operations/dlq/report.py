"""Formats dead letters and replays for people and programs. Never shows a conversation's text."""

import base64
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from rich.table import Table

from schemas.kafka import DEFAULT_TENANT
from streams.operations.dlq.dead_letter import StoredDeadLetter
from streams.operations.dlq.ledger import ReplayMark
from streams.operations.dlq.replay import ReplayResult
from streams.operations.dlq.selection import Eligibility, Survey
from streams.terminal import GAP, Column, printable, terminal_table

COLUMNS = ("ID", "died at", "reason", "tenant", "conversation", "bytes", "origin", "replayed at", "detail")
#: Columns that a table leaves out to fit 80 characters; `dlq show` has them.
_ONLY_ELSEWHERE = ("bytes", "origin")
#: Left out of a table in which all rows have it.
_USUAL = {"tenant": DEFAULT_TENANT, "replayed at": ""}
#: Columns that shrink on a narrow terminal, and the width that they keep.
_MIN_WIDTHS = {"tenant": 8, "conversation": 12, "detail": 7}


def row(dead_letter: StoredDeadLetter, mark: ReplayMark | None) -> tuple[str, ...]:
    """Returns the cells of one dead letter, in the order of COLUMNS."""
    return (
        str(dead_letter.id),
        dead_letter.at.isoformat(timespec="seconds"),
        printable(dead_letter.reason),
        printable(dead_letter.tenant),
        printable(dead_letter.conversation_id),
        _size(dead_letter),
        _origin(dead_letter),
        mark.replayed_at.isoformat(timespec="seconds") if mark is not None else "",
        printable(dead_letter.detail),
    )


def table(listed: Iterable[tuple[StoredDeadLetter, ReplayMark | None]], width: int) -> Table:
    """Returns a table for a terminal of `width` columns, 80 or more: one line each, times in UTC without the year."""
    rows = [dict(zip(COLUMNS, row(dead_letter, mark), strict=True)) for dead_letter, mark in listed]
    for cells in rows:
        for name in ("died at", "replayed at"):
            cells[name] = cells[name][5:16].replace("T", " ")
    shown = [
        name
        for name in COLUMNS
        if name not in _ONLY_ELSEWHERE and any(cells[name] != _USUAL.get(name) for cells in rows)
    ]
    wanted = {name: max(len(name), *(len(cells[name]) for cells in rows)) for name in shown}
    # rich would take the same from every column, and leave nothing of the ID.
    widths = {name: min(wanted[name], _MIN_WIDTHS.get(name, wanted[name])) for name in shown}
    room = max(0, width - sum(widths.values()) - GAP * (len(shown) - 1))
    narrowed = [name for name in shown if widths[name] < wanted[name]]
    for index, name in enumerate(narrowed):
        more = min(room // (len(narrowed) - index), wanted[name] - widths[name])
        widths[name] += more
        room -= more
    columns = [Column(name, min_width=widths[name]) for name in shown]
    return terminal_table(columns, ([_cut(cells[name], widths[name]) for name in shown] for cells in rows))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "\u2026"


def document(dead_letter: StoredDeadLetter, mark: ReplayMark | None) -> dict[str, Any]:
    """Returns everything about a dead letter but its value and headers, for --json."""
    return {
        "dead_letter": str(dead_letter.id),
        "tenant": dead_letter.tenant,
        "id": dead_letter.conversation_id,
        "key": None if dead_letter.key is None else dead_letter.key.decode(errors="replace"),
        "reason": dead_letter.reason,
        "detail": dead_letter.detail,
        "at": dead_letter.at,
        "origin": None if dead_letter.origin is None else msgspec.structs.asdict(dead_letter.origin),
        "bytes": dead_letter.size_bytes,
        "truncated_from_bytes": dead_letter.truncated_from_bytes,
        "replays": dead_letter.replays,
        "replayed_at": None if mark is None else mark.replayed_at,
    }


def value_document(value: bytes | None) -> Mapping[str, str | None]:
    """Returns the value as text if it is UTF-8, else in base64."""
    try:
        return {"value": None if value is None else value.decode()}
    except UnicodeDecodeError:
        return {"value_base64": base64.b64encode(value or b"").decode()}


def facts(dead_letter: StoredDeadLetter, mark: ReplayMark | None) -> list[tuple[str, str]]:
    """Returns everything about a dead letter but its value, for a person."""
    replayed = "no"
    if mark is not None:
        sent_to = mark.sent_to
        replayed = f"{mark.replayed_at.isoformat()} to {sent_to.topic} {sent_to.partition}:{sent_to.offset}"
    return [
        ("dead letter", str(dead_letter.id)),
        ("reason", printable(dead_letter.reason)),
        ("detail", printable(dead_letter.detail)),
        ("died at", dead_letter.at.isoformat()),
        ("origin", _origin(dead_letter)),
        ("tenant", printable(dead_letter.tenant)),
        ("id", printable(dead_letter.conversation_id)),
        ("key", printable(dead_letter.key)),
        ("original key", printable(dead_letter.original_key)),
        ("bytes", _size(dead_letter)),
        ("replayed", replayed),
        *(("header", f"{printable(name)}: {printable(value)}") for name, value in dead_letter.headers),
    ]


def _origin(dead_letter: StoredDeadLetter) -> str:
    origin = dead_letter.origin
    return "" if origin is None else f"{printable(origin.topic)} {origin.partition}:{origin.offset}"


def _size(dead_letter: StoredDeadLetter) -> str:
    truncated_from = dead_letter.truncated_from_bytes
    return str(dead_letter.size_bytes) + (f" (truncated from {truncated_from})" if truncated_from is not None else "")


def survey_document(survey: Survey) -> dict[str, Any]:
    """Returns the counts of a list, for --json."""
    return {
        "unresolved": survey.unresolved.total(),
        "reasons": dict(survey.unresolved.most_common()),
        "replayed_already": survey.by[Eligibility.REPLAYED],
    }


def survey_lines(survey: Survey) -> list[str]:
    """Returns the counts of a list: a line for each reason, then the sum."""
    total = f"{survey.unresolved.total():>9}  unresolved, {survey.by[Eligibility.REPLAYED]} already replayed"
    return [*_reason_lines(survey.unresolved), total]


class ReplayReport:
    """The report of a replay; without a `result`, of a dry run."""

    def __init__(self, survey: Survey, result: ReplayResult | None, limit: int | None) -> None:
        self._is_dry_run = result is None
        self._result = result = result or ReplayResult()
        self._foreign = survey.by[Eligibility.FOREIGN]
        self._eligible = eligible = survey.eligible.total()
        self._reasons = survey.eligible if self._is_dry_run else result.sent
        self._sent = result.sent.total()
        self._without_mark = self._sent - result.marked
        self._skipped = {
            "replayed_already": survey.by[Eligibility.REPLAYED],
            "too_often": survey.by[Eligibility.TOO_OFTEN],
            "filtered": survey.by[Eligibility.FILTERED],
        }
        self.to_send = eligible if limit is None else min(limit, eligible)
        #: What the next run would find; foreign dead letters count until a run fails on them.
        self.left = max(0, eligible + self._foreign - self._sent - result.failed)

    def document(self) -> dict[str, Any]:
        """Returns the report for --json."""
        document = {
            "dry_run": self._is_dry_run,
            "to_send": self.to_send,
            "sent": self._sent,
            "sent_without_mark": self._without_mark,
            "skipped": self._skipped,
            "left": self.left,
            "failed": self._result.failed,
            "reasons": dict(self._reasons.most_common()),
        }
        if not self._is_dry_run:
            failures = [{"dead_letter": str(failed), "why": why} for failed, why in self._result.failures]
            document |= {"failed_first": failures, "stopped": self._result.was_stopped}
        return document

    def lines(self) -> list[str]:
        """Returns the report for a person: a line for each reason, then the outcome."""
        counts = "{replayed_already} already replayed, {too_often} too often, {filtered} filtered out"
        skipped = f"skipped {sum(self._skipped.values())} ({counts.format(**self._skipped)})"
        if self._is_dry_run:
            foreign = f"; {self._foreign} cannot be sent" if self._foreign else ""
            outcome = f"would send {self.to_send}, {skipped}, left {self._eligible - self.to_send}{foreign}"
        else:
            without = f" ({self._without_mark} without a mark, which the next run sends again)"
            sent = f"sent {self._sent}{without if self._without_mark else ''}"
            outcome = f"{sent}, {skipped}, left {self.left}, failed {self._result.failed}"
        return [*_reason_lines(self._reasons), outcome]


def _reason_lines(counts: Counter[str]) -> list[str]:
    return [f"{count:>9}  {printable(reason)}" for reason, count in counts.most_common()]
