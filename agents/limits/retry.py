"""Retries: how long to wait before the next attempt, and the loop that waits."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from schemas.errors import InsightsError, Retryable

T = TypeVar("T")

log = structlog.get_logger()

#: 2^62 steps are beyond every cap; the bound keeps the power a small integer for any number of attempts.
_MAX_DOUBLINGS = 62


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits drawn evenly from 0 to `base_s` x 2^attempt, never above `cap_s`.

    Full jitter, so that callers which failed together do not return together
    (aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter).
    """

    base_s: float
    cap_s: float

    def __post_init__(self) -> None:
        if not 0 < self.base_s <= self.cap_s:
            raise ValueError("a back-off needs 0 < base_s <= cap_s")

    def delay_s(self, attempt: int, random: Callable[[], float]) -> float:
        """Seconds to wait after failed attempt number `attempt` (the first is 0); `random` yields 0 <= x < 1."""
        ceiling_s = min(self.cap_s, self.base_s * (1 << min(attempt, _MAX_DOUBLINGS)))
        return random() * ceiling_s


#: An unforeseen error may pass; if it does not, an operator must learn about it.
DEFECT_ATTEMPTS = 5
DEFECT_BACKOFF = Backoff(base_s=0.2, cap_s=5.0)


class NoLongerWanted(InsightsError):
    """The work was given up: the records' partitions were revoked, and their next owner reads them again."""


async def retry(work: Callable[[], Awaitable[T]], backoff: Backoff, is_wanted: Callable[[], bool]) -> T:
    """Repeats `work` until it returns, waiting at least as long as a Retryable error asks.

    Raises NoLongerWanted as soon as `is_wanted` says no, and every other error of ours at once. The first unforeseen
    error is logged; after DEFECT_ATTEMPTS of them the latest is raised.
    """
    attempt = defects = 0
    while is_wanted():
        try:
            return await work()
        except Retryable as error:
            least_s = error.retry_after_s or 0.0
        except InsightsError:
            raise
        except Exception:
            defects += 1
            if defects == 1:
                log.exception("attempt_failed")
            if defects >= DEFECT_ATTEMPTS:
                raise
            least_s = 0.0
        if not is_wanted():
            break
        await asyncio.sleep(least_s + backoff.delay_s(attempt, random.random))
        attempt += 1
    raise NoLongerWanted("its records are no longer assigned here")
