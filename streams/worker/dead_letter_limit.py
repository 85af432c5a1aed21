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

#: One more dead letter than the limit among this many times as many outcomes halts the worker, too. It is a number, not
#: a share: of few outcomes a few deaths say nothing. Fewer outcomes are not waited for, since whatever came, it would
#: be more than 10 %.
OUTCOMES_PER_DEATH = 10

_HINT = (
    "look at them with `grok-insights dlq list`, fix the cause and restart the worker: it continues where it stopped, "
    "and `grok-insights dlq replay` sends the dead ones back. If the records themselves are bad, restart it with "
    "`grok-insights worker --accept-dead-letters N`, or `up` with the same option"
)


class _Death(NamedTuple):
    origin: Origin
    reason: DeadLetterReason


class DeadLetterLimit:
    """Counts outcomes in the order in which they come, and calls `reached` once, with what there is to say.

    `limit` deaths without another outcome between them are too many. The order is that in which work ends: a record
    that cannot be read dies at once, while others wait for the provider. But those soon fill the worker: with 1,024
    open records, the default, a row of 100 comes only of more than 9 % dead (100 of 1,124). The first `accepted` deaths
    do not count.

    A death counts when its dead letter is about to be sent, and once for each record: its partition may be taken away
    and given back before the offset is committed, any number of times, and then the record dies again. That is
    remembered for as long as the death is among the last outcomes, of which `limit` * OUTCOMES_PER_DEATH are kept.

    The limit is one worker's, from its start on: several workers, or one that is restarted again and again, send as
    many dead letters each.
    """

    def __init__(self, reached: Callable[[Fatal], None], limit: int, accepted: int = 0) -> None:
        self._reached = reached
        self._limit = limit
        self._may_accept = accepted
        self._accepted: set[Origin] = set()
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
        if job.origin in self._counted or job.origin in self._accepted:
            return True
        if self.is_reached:
            return False
        if len(self._accepted) < self._may_accept:
            self._accepted.add(job.origin)
            return True
        self._in_a_row += 1
        self._counted.add(job.origin)
        self._append(_Death(job.origin, dead.reason))
        if self._in_a_row >= self._limit:
            self._halt(f"{self._in_a_row} in a row")
        elif len(self._counted) > self._limit:
            self._halt(f"{len(self._counted)} among the last {len(self._last)} outcomes")
        return True

    def _append(self, outcome: _Death | None) -> None:
        self._last.append(outcome)
        if len(self._last) > self._limit * OUTCOMES_PER_DEATH and (oldest := self._last.popleft()) is not None:
            self._counted.discard(oldest.origin)

    def _halt(self, how_many: str) -> None:
        self.is_reached = True
        [(reason, count)] = Counter(death.reason for death in self._last if death is not None).most_common(1)
        why = f"{how_many}; the most frequent reason is {reason}, {count} times"
        self._reached(Fatal("too many records became dead letters", why, _HINT))
