"""The recipe: look up, share, ask, keep; no text is paid for twice."""

import asyncio
from datetime import timedelta

from structlog.testing import capture_logs

from agents.analyse import Recipe
from schemas.errors import Fatal, Retryable
from schemas.insight import Answer
from schemas.outcome import Analysed, Cached
from tests.fakes.analysis import NOON, FakeAnalyser, MemoryCache, an_answer

TTL = timedelta(days=30)


def recipe(analyser: FakeAnalyser, *, days_later: float = 0) -> Recipe:
    return Recipe(analyser, TTL, lambda: NOON + timedelta(days=days_later))


async def test_a_known_text_is_not_asked_about_again() -> None:
    """The second time the cache answers."""
    analyser, cache = FakeAnalyser(), MemoryCache()
    cook = recipe(analyser)
    first = await cook.analyse("text", "key", cache)
    second = await cook.analyse("text", "key", cache)
    assert (type(first), type(second), analyser.asked) == (Analysed, Cached, ["text"])


async def test_equal_texts_in_flight_share_one_call() -> None:
    """A burst of one text is one call: one analysed, the others cached."""
    analyser, cache = FakeAnalyser(), MemoryCache()
    cook = recipe(analyser)
    outcomes = await asyncio.gather(*(cook.analyse("text", "key", cache) for _ in range(50)))
    assert sum(isinstance(outcome, Analysed) for outcome in outcomes) == 1
    assert analyser.asked == ["text"]


async def test_an_old_answer_is_asked_for_anew() -> None:
    """CACHE_TTL_DAYS bounds how long an answer serves."""
    analyser, cache = FakeAnalyser(), MemoryCache()
    await recipe(analyser).analyse("text", "key", cache)
    late = await recipe(analyser, days_later=31).analyse("text", "key", cache)
    assert isinstance(late, Analysed)


async def test_a_new_analysis_version_does_not_serve_old_answers() -> None:
    """A changed prompt, schema or model means other answers."""
    analyser, cache = FakeAnalyser(), MemoryCache()
    cook = recipe(analyser)
    await cook.analyse("text", "key", cache)
    analyser.version = "v2"
    assert isinstance(await cook.analyse("text", "key", cache), Analysed)


async def test_an_error_reaches_everyone_and_is_not_kept() -> None:
    """Those who shared a failed call all hear of it, and the next attempt asks again."""
    analyser, cache = FakeAnalyser([Retryable("down")]), MemoryCache()
    cook = recipe(analyser)
    results = await asyncio.gather(*(cook.analyse("text", "key", cache) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(result, Retryable) for result in results)
    assert isinstance(await cook.analyse("text", "key", cache), Analysed)


async def test_an_answer_that_came_is_kept_even_if_nobody_waits_any_more() -> None:
    """It is paid for: a worker that loses its partition at that moment leaves the answer to the next one."""
    cache, may_keep, keeps = MemoryCache(), asyncio.Event(), asyncio.Event()

    class SlowCache(MemoryCache):
        async def put(self, key: str, answer: Answer) -> None:
            keeps.set()
            await may_keep.wait()
            await cache.put(key, answer)

    asking = asyncio.create_task(recipe(FakeAnalyser()).analyse("text", "key", SlowCache()))
    await keeps.wait()
    asking.cancel()
    may_keep.set()
    await asyncio.wait({asking})
    assert asking.cancelled()
    assert cache.get("key:v1") is not None


async def test_an_answer_that_could_not_be_kept_is_not_asked_for_again() -> None:
    """The brokers were down for longer than a partition that is taken away may wait; the text comes back here."""

    class DeadCache(MemoryCache):
        async def put(self, key: str, answer: Answer) -> None:
            keeps.set()
            raise Retryable("no broker answers", retry_after_s=60)

    keeps, analyser, cache = asyncio.Event(), FakeAnalyser(), MemoryCache()
    cook = recipe(analyser)
    asking = asyncio.create_task(cook.analyse("text", "key", DeadCache()))
    await keeps.wait()
    asking.cancel()
    await asyncio.wait({asking})
    assert isinstance(await cook.analyse("text", "key", cache), Analysed)
    assert (analyser.asked, list(cache.answers)) == (["text"], ["key:v1"])


async def test_an_answer_that_could_not_be_kept_grows_old_too() -> None:
    """CACHE_TTL_DAYS holds for it as for one that was kept."""
    analyser, hours = FakeAnalyser(), {"later": 0}
    cook = Recipe(analyser, TTL, lambda: NOON + timedelta(hours=hours["later"]))
    cook._remember("key:v1", an_answer())
    hours["later"] = 31 * 24
    await cook.analyse("text", "key", MemoryCache())
    assert analyser.asked == ["text"]


async def test_an_answer_that_another_worker_kept_need_not_be_remembered() -> None:
    """Found in the table, it is not held in memory as well."""
    cache, cook = MemoryCache(), recipe(FakeAnalyser())
    cook._remember("key:v1", an_answer())
    await cache.put("key:v1", an_answer())
    assert isinstance(await cook.analyse("text", "key", cache), Cached)
    assert not cook._unkept


async def test_keeping_ends_with_its_second_and_a_failure_in_it_is_told() -> None:
    """A second cancellation leaves nothing running; an error that no asker can hear of is logged."""

    class BrokenCache(MemoryCache):
        async def put(self, key: str, answer: Answer) -> None:
            keeps.set()
            await may_fail.wait()
            raise Fatal("the answers table cannot be written")

    for is_cancelled_again in (True, False):
        keeps, may_fail = asyncio.Event(), asyncio.Event()
        asking = asyncio.create_task(recipe(FakeAnalyser())._ask("text", "key:v1", BrokenCache()))
        await keeps.wait()
        asking.cancel()
        await asyncio.sleep(0)
        with capture_logs() as logs:
            asking.cancel() if is_cancelled_again else may_fail.set()
            await asyncio.wait({asking})
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert [entry["event"] for entry in logs] == ([] if is_cancelled_again else ["answer_not_kept"])


async def test_keeping_is_tried_again_and_the_call_is_not() -> None:
    """The answer is paid for; asking anew because the changelog did not answer would pay for it again."""

    class FailingCache(MemoryCache):
        failures = 3

        async def put(self, key: str, answer: Answer) -> None:
            if self.failures:
                self.failures -= 1
                raise Retryable("the changelog does not answer", retry_after_s=0)
            await super().put(key, answer)

    analyser, cache = FakeAnalyser(), FailingCache()
    await recipe(analyser).analyse("text", "key", cache)
    assert (len(analyser.asked), cache.failures, len(cache.answers)) == (1, 0, 1)


async def test_an_answer_is_not_given_out_before_it_is_kept() -> None:
    """An equal text must find the answer whatever happens next."""
    may_keep = asyncio.Event()

    class SlowCache(MemoryCache):
        async def put(self, key: str, answer: Answer) -> None:
            await may_keep.wait()

    asking = asyncio.create_task(recipe(FakeAnalyser()).analyse("text", "key", SlowCache()))
    done, _ = await asyncio.wait({asking}, timeout=0.05)
    assert not done
    may_keep.set()
    assert isinstance(await asking, Analysed)
