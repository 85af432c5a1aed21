"""Bugs that the judge must notice: each is one mistake of a careless developer, planted into a worker by one patch.

They test the harness and nothing else; `python -m tests.chaos.buggy_worker BUG` runs a worker with one of them.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from tests.chaos import planted_in_answers, planted_in_offsets, planted_in_sinks
from tests.chaos.schedule import RoundFaults

Finding = Literal[
    "missing",
    "corrupted",
    "invented",
    "duplicate_rows",
    "commits_past_unfinished",
    "commits_moved_back",
    "paid_again",
    "delivered_before_kept",
    "unbalanced",
]


@dataclass(frozen=True)
class Bug:
    """`story` is what the developer did; `shows_as` the violation that the judge must report, among any others.

    A bug that shows in one situation only has its own `faults`, which cause it in every round.
    """

    name: str
    story: str
    shows_as: Finding
    patch: Callable[[], None]
    faults: RoundFaults | None = None


def _bug(patch: Callable[[], None], shows_as: Finding, faults: RoundFaults | None = None) -> Bug:
    return Bug(patch.__name__, inspect.getdoc(patch) or "", shows_as, patch, faults)


#: A worker that was frozen out comes back, and gets partitions that another one worked on meanwhile.
_THAWED_AND_LEFT_ALONE = RoundFaults(("frozen",), ("grok_slow",))
#: A worker that was frozen out comes back, and the broker that would tell it so has just died.
_THAWED_WITHOUT_COORDINATOR = RoundFaults(("thawed_without_coordinator",) * 2, ("grok_slow",))
#: Leaders of partitions are away for some seconds, while the group's coordinator takes commits.
_BROKERS_KILLED = RoundFaults(("stopped",), ("broker_killed",) * 3)
#: Calls fail all the time, so that some of them are shared.
_CALLS_FAIL = RoundFaults(("killed",), ("grok_errors", "grok_resets", "grok_errors"))
#: Workers join and leave in quick succession.
_REBALANCES = RoundFaults(("churn", "churn"), ("grok_slow",))

BUGS: Mapping[str, Bug] = {
    bug.name: bug
    for bug in (
        _bug(planted_in_offsets.commit_on_read, "commits_past_unfinished"),
        _bug(planted_in_offsets.commit_highest, "commits_past_unfinished"),
        _bug(planted_in_offsets.slot_opened_late, "commits_past_unfinished"),
        _bug(planted_in_offsets.dead_generation_commits, "commits_moved_back", _THAWED_AND_LEFT_ALONE),
        _bug(planted_in_offsets.reads_from_the_end, "missing"),
        _bug(planted_in_offsets.ended_reader_feeds_the_next, "commits_past_unfinished", _REBALANCES),
        _bug(planted_in_offsets.first_fetch_skipped, "missing", _REBALANCES),
        _bug(planted_in_offsets.cancelled_is_finished, "commits_past_unfinished", _REBALANCES),
        _bug(planted_in_sinks.commit_before_sink, "commits_past_unfinished"),
        _bug(planted_in_sinks.event_not_awaited, "commits_past_unfinished"),
        _bug(planted_in_sinks.row_not_awaited, "commits_past_unfinished"),
        _bug(planted_in_sinks.plain_insert, "unbalanced"),
        _bug(planted_in_sinks.table_without_key, "duplicate_rows"),
        _bug(planted_in_sinks.origin_of_the_copy, "invented"),
        _bug(planted_in_sinks.row_means_done, "unbalanced"),
        _bug(planted_in_sinks.rehomed_not_awaited, "commits_past_unfinished", _BROKERS_KILLED),
        _bug(planted_in_sinks.dead_letter_dropped_on_error, "missing"),
        _bug(planted_in_answers.errors_set_aside, "unbalanced"),
        _bug(planted_in_answers.answer_kept_unchecked, "corrupted"),
        _bug(planted_in_answers.answer_kept_in_background, "delivered_before_kept"),
        _bug(planted_in_answers.cache_entry_reserved, "corrupted"),
        _bug(planted_in_answers.cache_key_cut, "corrupted"),
        _bug(planted_in_answers.no_single_flight, "paid_again"),
        _bug(planted_in_answers.flight_drops_error, "corrupted", _CALLS_FAIL),
        _bug(planted_in_answers.lease_not_asked, "paid_again", _THAWED_WITHOUT_COORDINATOR),
        _bug(planted_in_answers.changelog_not_written, "paid_again"),
        _bug(planted_in_answers.owner_by_salted_hash, "paid_again"),
    )
}
