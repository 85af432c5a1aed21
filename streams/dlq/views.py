"""How letters are shown: as rows of a table, as lines, as JSON. Never what a conversation says."""

import base64
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from streams.dlq.account import Account
from streams.dlq.ledger import Mark
from streams.dlq.letter import Letter
from streams.dlq.replay import Replayed
from streams.dlq.survey import Entry, Survey
from streams.terminal import printable

COLUMNS = ("letter", "died at", "reason", "tenant", "id", "bytes", "origin", "replayed at", "detail")
_SHORTENED = frozenset({"died at", "origin", "replayed at"})
#: Columns that give way on a narrow terminal, and what they keep.
_KEPT_WIDTH = {"tenant": 8, "id": 16, "detail": 10}


def row(entry: Entry) -> tuple[str, ...]:
    """One letter's cells, in the order of COLUMNS."""
    letter = entry.letter
    return (
        str(letter.id),
        letter.at.isoformat(timespec="seconds"),
        printable(letter.reason),
        printable(letter.tenant),
        printable(letter.key),
        _size(letter, entry.size_bytes),
        _origin(letter),
        entry.mark.replayed_at.isoformat(timespec="seconds") if entry.mark is not None else "",
        printable(letter.detail),
    )


def table(entries: Iterable[Entry], conversations: str) -> Table:
    """For a terminal, one line a letter, cut where it does not fit; `show` tells all. Times are UTC.

    The column of replays is there only if there is one. `conversations` is the topic that most records come from: its
    name is left out.
    """
    rows = [_short(row(entry), conversations) for entry in entries]
    shown = [n for n, name in enumerate(COLUMNS) if name != "replayed at" or any(cells[n] for cells in rows)]
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for n in shown:
        width = max(len(COLUMNS[n]), *(len(cells[n]) for cells in rows))
        drawn.add_column(
            COLUMNS[n],
            no_wrap=True,
            min_width=min(width, _KEPT_WIDTH.get(COLUMNS[n], width)),
            justify="right" if COLUMNS[n] == "bytes" else "left",
        )
    for cells in rows:
        # Through Text, since a foreign id may hold what rich takes for markup.
        drawn.add_row(*(Text(cells[n]) for n in shown))
    return drawn


def _short(cells: tuple[str, ...], conversations: str) -> tuple[str, ...]:
    """Without what is the same in every row: the zone of times, and the topic that all of ours come from."""
    return tuple(
        cell.removesuffix("+00:00").removeprefix(f"{conversations} ") if name in _SHORTENED else cell
        for name, cell in zip(COLUMNS, cells, strict=True)
    )


def document(letter: Letter, size_bytes: int, mark: Mark | None) -> dict[str, Any]:
    """One letter for a program."""
    origin = letter.origin
    return {
        "letter": str(letter.id),
        "tenant": letter.tenant,
        "id": None if letter.key is None else letter.key.decode(errors="replace"),
        "reason": letter.reason,
        "detail": letter.detail,
        "at": letter.at,
        "origin": None
        if origin is None
        else {"topic": origin.topic, "partition": origin.partition, "offset": origin.offset},
        "bytes": size_bytes,
        "truncated_from_bytes": letter.truncated_from_bytes,
        "replays": letter.replays,
        "replayed_at": None if mark is None else mark.replayed_at,
    }


def value_document(value: bytes | None) -> Mapping[str, str | None]:
    """The value as text where it is UTF-8, else in base64."""
    try:
        return {"value": None if value is None else value.decode()}
    except UnicodeDecodeError:
        return {"value_base64": base64.b64encode(value or b"").decode()}


def survey_document(survey: Survey) -> dict[str, Any]:
    """The counts for a program."""
    return {
        "unresolved": survey.unresolved.total(),
        "reasons": dict(survey.unresolved.most_common()),
        "replayed_already": survey.replayed,
    }


def survey_lines(survey: Survey) -> list[str]:
    """The counts for a person: one line a reason, then the sum."""
    return [
        *_reason_lines(survey.unresolved),
        f"{survey.unresolved.total():>9}  unresolved, {survey.replayed} replayed already",
    ]


def plan_document(survey: Survey, account: Account) -> dict[str, Any]:
    """A dry run for a program."""
    return {"dry_run": True, **_account_document(account), "reasons": dict(survey.to_send.most_common())}


def plan_lines(survey: Survey, account: Account) -> list[str]:
    """A dry run for a person: one line a reason, then what would be done."""
    cannot = f"; {survey.foreign} cannot be sent" if survey.foreign else ""
    left = survey.to_send.total() - account.to_send
    return [*_reason_lines(survey.to_send), f"would send {account.to_send}, {_skipped(account)}, left {left}{cannot}"]


def replay_document(done: Replayed, account: Account) -> dict[str, Any]:
    """A replay for a program."""
    return {
        "dry_run": False,
        **_account_document(account),
        "reasons": dict(done.sent.most_common()),
        "failed_first": [{"letter": str(letter_id), "why": why} for letter_id, why in done.named],
        "stopped": done.was_stopped,
    }


def replay_lines(done: Replayed, account: Account) -> list[str]:
    """A replay for a person: one line a reason, then the outcome."""
    unmarked = f" ({account.unmarked} without a mark, which the next run sends again)" if account.unmarked else ""
    outcome = f"sent {account.sent}{unmarked}, {_skipped(account)}, left {account.left}, failed {account.failed}"
    return [*_reason_lines(done.sent), outcome]


def _reason_lines(counts: Counter[str]) -> list[str]:
    return [f"{count:>9}  {printable(reason)}" for reason, count in counts.most_common()]


def _skipped(account: Account) -> str:
    named = (
        f"{account.replayed_already} already replayed, {account.too_often} too often, {account.filtered} filtered out"
    )
    return f"skipped {account.skipped} ({named})"


def _account_document(account: Account) -> dict[str, Any]:
    return {
        "to_send": account.to_send,
        "sent": account.sent,
        "sent_without_mark": account.unmarked,
        "skipped": {
            "replayed_already": account.replayed_already,
            "too_often": account.too_often,
            "filtered": account.filtered,
        },
        "left": account.left,
        "failed": account.failed,
    }


def facts(letter: Letter, mark: Mark | None) -> list[tuple[str, str]]:
    """Everything about one letter but its value."""
    sent_to = mark and f"{mark.sent_to.topic} {mark.sent_to.partition}:{mark.sent_to.offset}"
    told = [
        ("letter", str(letter.id)),
        ("reason", printable(letter.reason)),
        ("detail", printable(letter.detail)),
        ("died at", letter.at.isoformat()),
        ("origin", _origin(letter)),
        ("tenant", printable(letter.tenant)),
        ("id", printable(letter.key)),
        ("original key", printable(letter.original_key)),
        ("bytes", _size(letter, letter.size_bytes)),
        ("replayed", f"{mark.replayed_at.isoformat()} to {sent_to}" if mark is not None else "no"),
    ]
    return told + [("header", f"{printable(name)}: {printable(value)}") for name, value in letter.headers]


def _origin(letter: Letter) -> str:
    origin = letter.origin
    return "" if origin is None else f"{printable(origin.topic)} {origin.partition}:{origin.offset}"


def _size(letter: Letter, size_bytes: int) -> str:
    cut = letter.truncated_from_bytes
    return str(size_bytes) if cut is None else f"{size_bytes} (cut from {cut})"
