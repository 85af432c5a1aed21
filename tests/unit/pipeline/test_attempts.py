"""How often a step is tried."""

import pytest
from streams.pipeline import attempts
from streams.pipeline.attempts import DEFECT_ATTEMPTS, AssignmentOver, until_done

from agents.limits.retry import Backoff
from schemas.errors import Fatal, Retryable, Unprocessable


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The back-off has tests of its own."""
    monkeypatch.setattr(attempts, "BACKOFF", Backoff(base_s=1e-6, cap_s=1e-6))


class Work:
    """Raises the given errors one after the other, then returns."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


async def test_a_passing_failure_is_waited_out_for_ever() -> None:
    """However often it comes."""
    work = Work(*[Retryable("down")] * 100)
    assert await until_done(work, lambda: True) == "done"


async def test_a_defect_has_a_bound() -> None:
    """Then the record is set aside, with the error's type and none of its words."""
    work = Work(*[ZeroDivisionError("secret text")] * 100)
    with pytest.raises(Unprocessable) as caught:
        await until_done(work, lambda: True)
    assert (work.calls, caught.value.detail) == (DEFECT_ATTEMPTS, "ZeroDivisionError")


@pytest.mark.parametrize("error", [Unprocessable("refused", ""), Fatal("stop")])
async def test_what_no_attempt_can_mend_comes_through_at_once(error: Exception) -> None:
    """One attempt, no more."""
    work = Work(error)
    with pytest.raises(type(error)):
        await until_done(work, lambda: True)
    assert work.calls == 1


async def test_nothing_is_tried_once_the_assignment_is_over() -> None:
    """Also not after a failure that came while it lived."""
    life = iter([True, False])
    work = Work(Retryable("down"))
    with pytest.raises(AssignmentOver):
        await until_done(work, lambda: next(life))
    assert work.calls == 1
