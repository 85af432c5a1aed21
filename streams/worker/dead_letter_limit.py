"""Dead-letter limit: how many records may die before this worker takes no more. A bad deploy must not drain the topic.

Pure. Once reached it stays, until the process ends: only a person can tell whether the cause was removed.
"""

from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

from agents.decode import Job
from schemas.dead_letter import DeadLetterReason
from schemas.errors import Fatal
from schemas.kafka import Origin
from schemas.outcome import Dead

#: This many deaths without another outcome between them halt the worker. The order is that in which work ends: a record
#: that cannot be read dies at once, while others wait for the provider. But those soon fill the worker: with 1,024 open
#: records, the default, a row comes only of more than 9 % dead (100 of 1,124).
MAX_IN_A_ROW = 100
LAST_OUTCOMES = 1_000
#: One more than these 10 % among the last outcomes halts the worker. It is a number, not a share: of few outcomes a few
#: deaths say nothing. Fewer outcomes are not waited for, since whatever came, it would be more than 10 %.
MAX_AMONG_LAST = LAST_OUTCOMES // 10

_HINT = (
    "look at them with `grok-insights dlq list` and remove the cause, then restart the worker: it goes on where it "
    "stopped, and `grok-insights dlq replay` sends the dead ones back"
)


class _Death(NamedTuple):
    origin: Origin
    reason: DeadLetterReason


class DeadLetterLimit:
    """Counts outcomes in the order in which they come, and calls `reached` once, with what there is to say.

    A death counts when its dead letter is about to be sent, and once for each record: its partition may be taken away
    and given back before the offset is committed, any number of times, and then the record dies again. That is
    remembered for as long as the death is among the last LAST_OUTCOMES outcomes.

    The limit is one worker's, from its start on: several workers, or one that is restarted again and again, send as
    many dead letters each.
    """

    def __init__(self, reached: Callable[[Fatal], None]) -> None:
        self._reached = reached
        self._last: deque[_Death | None] = deque()
        self._counted: set[Origin] = set()
        self._in_a_row = 0
        self.is_reached = False

    def delivered(self, count: int) -> None:
        """That many conversations ended otherwise than dead."""
        self._in_a_row = 0
        for _ in range(count):
            self._append(None)

    def admits(self, job: Job, dead: Dead) -> bool:
        """Whether the dead letter of this record may be sent; once reached, only one that was admitted before.

        The dead letter that reaches the limit is the last one admitted.
        """
        if job.origin in self._counted:
            return True
        if self.is_reached:
            return False
        self._in_a_row += 1
        self._counted.add(job.origin)
        self._append(_Death(job.origin, dead.reason))
        if self._in_a_row >= MAX_IN_A_ROW:
            self._halt(f"{self._in_a_row} in a row")
        elif len(self._counted) > MAX_AMONG_LAST:
            self._halt(f"{len(self._counted)} among the last {len(self._last)} outcomes")
        return True

    def _append(self, outcome: _Death | None) -> None:
        self._last.append(outcome)
        if len(self._last) > LAST_OUTCOMES and (oldest := self._last.popleft()) is not None:
            self._counted.discard(oldest.origin)

    def _halt(self, how_many: str) -> None:
        self.is_reached = True
        [(reason, count)] = Counter(death.reason for death in self._last if death is not None).most_common(1)
        why = f"{how_many}; the most frequent reason is {reason}, {count} times"
        self._reached(Fatal("too many records became dead letters", why, _HINT))
