"""Checks that no commit passed an unfinished record or moved back. Pure."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from itertools import accumulate
from math import inf

from tests.chaos.evidence import Evidence, Input, Place
from tests.chaos.verdict import Verdict
from tests.support.topics import TOPICS


def judge_commits(evidence: Evidence, rows_ms: Mapping[Place, float], verdict: Verdict) -> None:
    """Compares times that the brokers and Postgres recorded, by the clock of one machine.

    A record is finished when its event or dead letter is in the log and its row, if it must have one, is committed:
    `rows_ms` has the time by first place. A rehomed record is finished when its copy is in the log.
    """
    furthest: dict[tuple[str, int], int] = defaultdict(int)
    offsets = {at: [entry.offset for entry in entries] for at, entries in evidence.inputs.items()}
    done_ms = {
        at: list(accumulate((_end_ms(at[0], entry, evidence, rows_ms) for entry in entries), max))
        for at, entries in evidence.inputs.items()
    }
    for commit in evidence.commits:
        at = (commit.topic, commit.partition)
        below = bisect_left(offsets.get(at, []), commit.offset)
        if below and done_ms[at][below - 1] > commit.at_ms:
            late_ms = done_ms[at][below - 1] - commit.at_ms
            verdict.violation("commits_past_unfinished", f"{at[0]}/{at[1]} to {commit.offset}, {late_ms:g} ms early")
        if commit.offset < furthest[at]:
            verdict.violation("commits_moved_back", f"{at[0]}/{at[1]} from {furthest[at]} to {commit.offset}")
        furthest[at] = max(furthest[at], commit.offset)


def judge_offsets_at_end(evidence: Evidence, verdict: Verdict) -> None:
    """Checks that the group's offsets have reached the end of every partition."""
    last: dict[tuple[str, int], int] = {(commit.topic, commit.partition): commit.offset for commit in evidence.commits}
    for at, entries in evidence.inputs.items():
        committed, end = last.get(at, 0), entries[-1].offset + 1
        if committed != end:
            verdict.violation("unbalanced", f"{at[0]}/{at[1]} is committed to {committed} of {end}")


def _end_ms(topic: str, entry: Input, evidence: Evidence, rows_ms: Mapping[Place, float]) -> float:
    ended = max(evidence.ended.get(entry.first, inf), rows_ms.get(entry.first, 0))
    if topic == TOPICS.conversations and (copies := evidence.copies.get(entry.first)):
        return min(ended, *copies)
    return ended
