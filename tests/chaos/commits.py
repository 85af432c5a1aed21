"""Whether a commit passed a record that had not come to its end, or moved back. Pure."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from itertools import accumulate
from math import inf

from tests.chaos.evidence import Evidence, Input, Place
from tests.chaos.verdict import Verdict
from tests.support.topics import TOPICS


def judge_commits(evidence: Evidence, rows_ms: Mapping[Place, float], verdict: Verdict) -> None:
    """By times that the brokers and Postgres wrote down, which are of one machine.

    A record has come to its end when its event or letter stands in the log and, where it has to have a row, that was
    written: `rows_ms` tells when, by first place. A record that was sent home has, when its copy stands in the log.
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
    """When all is done, the group's offsets stand at the end of every partition."""
    last: dict[tuple[str, int], int] = {(commit.topic, commit.partition): commit.offset for commit in evidence.commits}
    for at, entries in evidence.inputs.items():
        stands_at, end = last.get(at, 0), entries[-1].offset + 1
        if stands_at != end:
            verdict.violation("unbalanced", f"{at[0]}/{at[1]} is committed to {stands_at} of {end}")


def _end_ms(topic: str, entry: Input, evidence: Evidence, rows_ms: Mapping[Place, float]) -> float:
    ended = max(evidence.ended.get(entry.first, inf), rows_ms.get(entry.first, 0))
    if topic == TOPICS.conversations and (copies := evidence.copies.get(entry.first)):
        return min(ended, *copies)
    return ended
