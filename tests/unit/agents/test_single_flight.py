"""Single flight: who shares a call, who accounts for it, and what errors and cancellations do."""

import asyncio
import gc

import pytest
from agents.guards.single_flight import SingleFlight


class Calls:
    """A call that the test ends by hand; counts how often it was begun and cancelled."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> str:
        self.begun += 1
        try:
            return await asyncio.shield(self.end)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def callers(flights: SingleFlight[str, str], calls: Calls, number: int) -> list[asyncio.Task[tuple[str, bool]]]:
    return [asyncio.create_task(flights.run("key", calls)) for _ in range(number)]


async def settle() -> None:
    """Lets everything run that is ready to."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_equal_keys_share_one_call_and_one_leads() -> None:
    """Fifty callers, one call, fifty values, exactly one leader: the first."""
    flights, calls = SingleFlight[str, str](), Calls()
    tasks = callers(flights, calls, 50)
    await settle()
    calls.end.set_result("value")
    assert await asyncio.gather(*tasks) == [("value", True)] + [("value", False)] * 49
    assert (calls.begun, len(flights)) == (1, 0)


async def test_different_keys_do_not_wait_for_each_other() -> None:
    """A call under way holds up nobody else."""
    flights, slow, fast = SingleFlight[str, str](), Calls(), Calls()
    waiting = asyncio.create_task(flights.run("slow", slow))
    fast.end.set_result("fast")
    assert await flights.run("fast", fast) == ("fast", True)
    slow.end.set_result("slow")
    assert await waiting == ("slow", True)


async def test_an_error_reaches_everyone_who_waits() -> None:
    """It is raised in leader and followers, and the next caller makes a new call."""
    flights, calls = SingleFlight[str, str](), Calls()
    tasks = callers(flights, calls, 3)
    await settle()
    calls.end.set_exception(OSError("broken"))
    assert [str(error) for error in await asyncio.gather(*tasks, return_exceptions=True)] == ["broken"] * 3
    again = Calls()
    again.end.set_result("value")
    assert await flights.run("key", again) == ("value", True)


async def test_a_cancelled_follower_leaves_the_call_alone() -> None:
    """The leader gets its value."""
    flights, calls = SingleFlight[str, str](), Calls()
    leader, follower = callers(flights, calls, 2)
    await settle()
    follower.cancel()
    await settle()
    calls.end.set_result("value")
    assert await leader == ("value", True)
    assert (follower.cancelled(), calls.begun, calls.cancelled) == (True, 1, 0)


async def test_a_cancelled_leader_hands_the_call_on() -> None:
    """The call goes on, is not made again, and the next in line accounts for it."""
    flights, calls = SingleFlight[str, str](), Calls()
    leader, second, third = callers(flights, calls, 3)
    await settle()
    leader.cancel()
    await settle()
    calls.end.set_result("value")
    assert [await second, await third] == [("value", True), ("value", False)]
    assert (leader.cancelled(), calls.begun, calls.cancelled) == (True, 1, 0)


async def test_the_call_is_cancelled_with_the_last_who_waits() -> None:
    """Nothing is left behind, and whoever comes next begins anew."""
    flights, calls = SingleFlight[str, str](), Calls()
    tasks = callers(flights, calls, 3)
    await settle()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (calls.cancelled, len(flights)) == (1, 0)
    again = Calls()
    again.end.set_result("value")
    assert await flights.run("key", again) == ("value", True)


async def test_a_call_cancelled_from_outside_is_made_again_by_a_follower() -> None:
    """Only the caller who began it sees the cancellation; the others were not cancelled."""
    flights, calls = SingleFlight[str, str](), Calls()
    leader, follower = callers(flights, calls, 2)
    await settle()
    (call,) = [task for task in asyncio.all_tasks() if task.get_name() == "single-flight"]
    call.cancel()
    await settle()
    calls.end.set_result("value")
    assert await follower == ("value", True)
    assert (leader.cancelled(), calls.begun) == (True, 2)


async def test_an_error_that_nobody_waits_for_is_not_reported_as_lost() -> None:
    """The call fails in the moment in which its last caller is cancelled: no "exception was never retrieved"."""
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    flights, calls = SingleFlight[str, str](), Calls()
    (only,) = callers(flights, calls, 1)
    await settle()
    calls.end.set_exception(OSError("broken"))
    only.cancel()
    with pytest.raises(asyncio.CancelledError):
        await only
    await settle()
    gc.collect()
    assert reported == []
