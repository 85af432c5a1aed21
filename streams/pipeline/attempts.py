"""How often a step of one record is tried: for ever while the failure is passing, a few times when it is a defect."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from agents.guards.backoff import Backoff
from schemas.dead_letter import DeadLetterReason
from schemas.errors import InsightsError, Retryable, Unprocessable

BACKOFF = Backoff(base_s=0.2, cap_s=30.0)
#: An error that nobody foresaw may still pass; if it does not, the record must not hold its partition for ever.
DEFECT_ATTEMPTS = 5

T = TypeVar("T")
IsAlive = Callable[[], bool]

log = structlog.get_logger()


class AssignmentOver(InsightsError):
    """The record's partition was taken away: whoever has it now reads the record again."""


async def until_done(work: Callable[[], Awaitable[T]], is_alive: IsAlive) -> T:
    """The work's value. Raises Unprocessable and Fatal as they come, and AssignmentOver when `is_alive` says so.

    Retryable is waited out, at least as long as it asks; any other error becomes Unprocessable after
    DEFECT_ATTEMPTS attempts.
    """
    attempt = defects = 0
    while is_alive():
        try:
            return await work()
        except Retryable as error:
            least_s = error.retry_after_s or 0.0
        except InsightsError:
            raise
        except Exception as error:  # a defect of ours: counted, logged, and the record is set aside if it stays
            defects += 1
            log.exception("step_failed", attempt=defects)
            if defects >= DEFECT_ATTEMPTS:
                raise Unprocessable(DeadLetterReason.INTERNAL_ERROR, type(error).__name__) from error
            least_s = 0.0
        await asyncio.sleep(least_s + BACKOFF.delay_s(attempt, random.random))
        attempt += 1
    raise AssignmentOver("the partition was taken away")
