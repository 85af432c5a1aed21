"""Cache, single flight, calls and the keeping of answers: no text is paid for twice, and none is lost."""

import asyncio
from datetime import timedelta

import pytest

from agents.limits.retry import DEFECT_ATTEMPTS
from schemas.call import UnansweredCall
from schemas.dead_letter import DeadLetterReason
from schemas.errors import Fatal, Retryable, Unprocessable
from schemas.insight import Usage
from tests.support.factories import MODEL, NOON, PARCEL, a_record, an_answer, value_of
from tests.unit.agents.bench import CACHE_TTL, LONG_S, Bench

REFUSED = Unprocessable(DeadLetterReason.REFUSED, "the provider refused")


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def test_equal_texts_in_one_fetch_share_one_call() -> None:
    """The first one is analysed, and accounts for the cost; the others are cached."""
    async with Bench() as bench:
        bench.take(*(value_of(id=f"c-{n}") for n in range(50)))
        await bench.settle()
        assert (bench.analyser.asked, bench.counts) == ([PARCEL], {"analysed": 1, "cached": 49})
        assert bench.outcomes["c-0"] == "analysed"
        assert sum(row.cost_usd_ticks for row in bench.rows.rows.values()) == 5_000


async def test_equal_texts_of_later_fetches_join_the_call_in_flight() -> None:
    """They also join while its answer is being kept."""
    async with Bench() as bench:
        bench.analyser.gate.clear()
        bench.answers.gate.clear()
        bench.take(value_of(id="first"))
        await bench.settle()
        bench.take(value_of(id="calling"))
        bench.analyser.gate.set()
        await bench.settle()
        bench.take(value_of(id="keeping"))
        bench.answers.gate.set()
        await bench.settle()
        assert bench.analyser.asked == [PARCEL]
        assert bench.outcomes == {"first": "analysed", "calling": "cached", "keeping": "cached"}


async def test_a_text_that_was_analysed_before_is_cached() -> None:
    """It costs nothing, and its row says so."""
    async with Bench() as bench:
        for conversation_id in "ab":
            bench.take(value_of(id=conversation_id))
            await bench.settle()
        row = bench.row("b")
        assert row is not None
        assert (row.outcome, row.cost_usd_ticks, row.insight) == ("cached", 0, an_answer().insight)
        assert bench.analyser.asked == [PARCEL]


async def test_an_answer_beyond_its_time_is_asked_for_again() -> None:
    """CACHE_TTL_DAYS bounds how long it serves; the new one replaces it."""
    async with Bench() as bench:
        bench.take(value_of(id="a"))
        await bench.settle()
        bench.now += CACHE_TTL
        bench.take(value_of(id="b"))
        await bench.settle()
        assert bench.outcomes["b"] == "cached"
        bench.now += timedelta(seconds=1)
        bench.take(value_of(id="c"))
        await bench.settle()
        assert (bench.outcomes["c"], len(bench.analyser.asked)) == ("analysed", 2)


async def test_an_answer_of_another_version_is_not_served() -> None:
    """A changed prompt, schema or model means other answers."""
    async with Bench() as old, Bench() as new:
        old.take(value_of())
        await old.settle()
        new.answers.shards = {0: {key.replace(b"v1", b"v0"): value for key, value in old.answers.shards[0].items()}}
        new.take(value_of())
        await new.settle()
        assert new.counts == {"analysed": 1}


async def test_an_answer_of_an_older_shape_is_asked_for_again() -> None:
    """It must not stop the partition."""
    async with Bench() as bench:
        bench.take(value_of(id="a"))
        await bench.settle()
        bench.answers.shards[0] = dict.fromkeys(bench.answers.shards[0], b'{"old": true}')
        bench.take(value_of(id="b"))
        await bench.settle()
        assert bench.outcomes["b"] == "analysed"


async def test_tenants_do_not_share_answers() -> None:
    """Equal texts of two tenants are two calls."""
    async with Bench() as bench:
        records = [a_record(offset=n, headers=[("tenant", tenant)]) for n, tenant in enumerate((b"acme", b"globex"))]
        bench.analyst.take(bench.tracker, records, rehomed=False)
        await bench.settle()
        assert (bench.analyser.asked, bench.counts) == ([PARCEL] * 2, {"analysed": 2})


async def test_no_more_calls_than_places() -> None:
    """The others wait in the order in which they came."""
    async with Bench(max_calls=2) as bench:
        bench.analyser.gate.clear()
        texts = [f"text number {n}" for n in range(5)]
        bench.take(*map(value_of, texts))
        await bench.settle()
        assert bench.analyser.asked == texts[:2]
        bench.analyser.gate.set()
        await bench.settle()
        assert bench.analyser.asked == texts


async def test_no_call_begins_while_answers_cannot_be_kept() -> None:
    """A killed worker then loses at most twice as many answers as it has call slots, and an outage of the changelog
    does not keep costing money."""
    async with Bench(max_calls=2) as bench:
        bench.answers.gate.clear()
        texts = [f"text number {n}" for n in range(9)]
        bench.take(*map(value_of, texts))
        await bench.settle()
        assert 2 <= len(bench.analyser.asked) < 4
        bench.answers.gate.set()
        await bench.settle()
        assert bench.analyser.asked == texts
        assert bench.is_all_finished


async def test_answers_that_were_given_up_leave_their_places() -> None:
    """The changelog did not take them before their partition was revoked."""
    async with Bench(max_calls=1) as bench:
        bench.answers.gate.clear()
        bench.take(value_of("first text", id="a"))
        await bench.settle()
        await bench.analyst.drain(1, 1)
        bench.revoke()
        bench.answers.gate.set()
        bench.assign_again()
        bench.take(value_of("second text", id="b"))
        await bench.settle()
        assert bench.outcomes == {"b": "analysed"}


@pytest.mark.parametrize("turns", range(12))
async def test_no_text_is_left_without_an_asker(turns: int) -> None:
    """A text may arrive at any moment while the only free place for a call is handed over."""
    async with Bench(max_calls=1) as bench:
        bench.analyser.gate.clear()
        bench.take(value_of("first text", id="a"))
        await bench.settle()
        bench.analyser.gate.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        bench.take(value_of("second text", id="b"))
        await bench.settle()
        assert bench.outcomes == {"a": "analysed", "b": "analysed"}


@pytest.mark.parametrize("turns", range(4))
async def test_places_are_free_again_in_the_next_assignment(turns: int) -> None:
    """This includes the places of tasks that were cancelled before their first step."""
    async with Bench(max_calls=1) as bench:
        bench.analyser.gate.clear()
        bench.take(value_of("first text", id="a"))
        for _ in range(turns):
            await asyncio.sleep(0)
        await bench.analyst.drain(1, 1)
        bench.revoke()
        bench.assign_again()
        bench.analyser.gate.set()
        bench.take(value_of("second text", id="b"))
        await bench.settle()
        assert bench.outcomes == {"b": "analysed"}


async def test_a_passing_failure_is_waited_out() -> None:
    """However often it comes, and at least as long as the provider asks."""
    async with Bench() as bench:
        bench.analyser.failures = [Retryable("503", retry_after_s=100), *[Retryable("503")] * 10]
        bench.take(value_of())
        await asyncio.sleep(100)
        assert len(bench.analyser.asked) == 1
        await bench.settle()
        assert (len(bench.analyser.asked), bench.counts) == (12, {"analysed": 1})


async def test_a_text_that_the_provider_refuses_makes_all_its_records_die() -> None:
    """Each with a dead letter and a row of its own; nothing is kept, so the next one is asked about again."""
    async with Bench() as bench:
        bench.analyser.failures = [REFUSED]
        bench.take(*(value_of(id=f"c-{n}") for n in range(3)))
        await bench.settle()
        assert (len(bench.dead_letters.sent), bench.counts, bench.answers.puts) == (3, {"dead": 3}, [])
        bench.take(value_of(id="later"))
        await bench.settle()
        assert bench.outcomes["later"] == "analysed"


async def test_a_defect_of_the_analyser_holds_the_text_back_after_bounded_attempts() -> None:
    """The text is not to blame. Equal texts are held back with it and not asked about; others continue."""
    async with Bench() as bench:
        bench.analyser.errors[PARCEL] = ZeroDivisionError("secret text")
        bench.take(value_of(id="a"))
        await bench.settle()
        bench.take(value_of(id="b"), value_of("other text", id="c"))
        await bench.settle()
        assert (bench.dead_letters.sends, bench.outcomes, bench.failures) == ([], {"c": "analysed"}, [])
        assert (bench.analyser.asked.count(PARCEL), bench.analyst.held_back_records) == (DEFECT_ATTEMPTS, 2)
        assert bench.tracker.committable is None


async def test_a_fatal_failure_ends_the_worker_and_leaves_the_slot_open() -> None:
    """A wrong key must not turn the topic into dead letters."""
    async with Bench() as bench:
        fatal = bench.analyser.errors[PARCEL] = Fatal("the key is wrong")
        bench.take(value_of())
        await bench.settle()
        assert (bench.failures, bench.dead_letters.sends, bench.tracker.committable) == ([fatal], [], None)


async def test_an_answer_is_given_out_when_it_is_kept() -> None:
    """No record gets it earlier: an equal text must find it whatever happens next."""
    async with Bench() as bench:
        bench.answers.gate.clear()
        bench.take(value_of())
        await bench.settle()
        assert (bench.analyser.answered, bench.rows.rows) == ([PARCEL], {})
        bench.answers.gate.set()
        await bench.settle()
        assert bench.counts == {"analysed": 1}


async def test_keeping_is_tried_again_and_the_call_is_not() -> None:
    """Another call because the changelog does not answer would pay for the text again."""
    async with Bench() as bench:
        bench.answers.is_refusing = True
        bench.take(value_of())
        await bench.settle()
        assert len(bench.answers.puts) > 10
        bench.answers.is_refusing = False
        await bench.settle()
        assert (bench.analyser.asked, bench.counts) == ([PARCEL], {"analysed": 1})


async def test_a_drain_lets_calls_end_and_keeps_their_answers() -> None:
    """Records that finish in time can be committed before the partitions are revoked."""
    async with Bench() as bench:
        gate = bench.analyser.held[PARCEL] = asyncio.Event()
        bench.take(value_of())
        await bench.settle()
        asyncio.get_running_loop().call_later(5, gate.set)
        began_s = now_s()
        await bench.analyst.drain(6, 1)
        assert now_s() - began_s == pytest.approx(5)
        assert (bench.counts, bench.is_all_finished) == ({"analysed": 1}, True)


async def test_a_drain_cancels_late_calls_and_begins_none() -> None:
    """It takes no longer than allowed, and drops records without a call."""
    async with Bench(max_calls=1) as bench:
        bench.analyser.gate.clear()
        bench.take(value_of("late text"), value_of("text that waits"))
        await bench.settle()
        began_s = now_s()
        await bench.analyst.drain(6, 1)
        assert now_s() - began_s == pytest.approx(6)
        bench.revoke()
        bench.analyser.gate.set()
        await bench.settle()
        assert (bench.analyser.asked, bench.analyser.answered) == (["late text"], [])


async def test_a_call_that_fails_during_a_drain_is_not_made_again() -> None:
    """The drain would cut it off; the next owner asks."""
    async with Bench() as bench:
        bench.analyser.gate.clear()
        bench.analyser.failures = [Retryable("503")]
        bench.take(value_of())
        await bench.settle()
        asyncio.get_running_loop().call_later(1, bench.analyser.gate.set)
        await bench.analyst.drain(6, 1)
        assert (bench.analyser.asked, bench.analyser.answered) == ([PARCEL], [])


async def test_a_drain_does_not_wait_for_attempts_that_only_wait() -> None:
    """A call that failed and waits for its next attempt has cost nothing yet."""
    async with Bench() as bench:
        bench.analyser.errors[PARCEL] = Retryable("503", retry_after_s=LONG_S)
        bench.take(value_of())
        await asyncio.sleep(1)
        began_s = now_s()
        await bench.analyst.drain(6, 1)
        assert now_s() == began_s


async def test_a_drain_waits_for_answers_to_be_kept() -> None:
    """An answer that came in the drain's last moment gets as long as keeping may take, and no longer."""
    async with Bench() as bench:
        bench.answers.gate.clear()
        bench.analyser.gate.clear()
        bench.take(value_of())
        await bench.settle()
        began_s = now_s()
        asyncio.get_running_loop().call_later(5.9, bench.analyser.gate.set)
        await bench.analyst.drain(6, 1)
        assert now_s() - began_s == pytest.approx(6.9)


async def test_an_answer_that_came_is_kept_though_its_partition_was_revoked() -> None:
    """It is paid for: the next owner finds it."""
    async with Bench() as bench:
        bench.answers.gate.clear()
        bench.take(value_of())
        await bench.settle()
        await bench.analyst.drain(6, 1)
        bench.revoke()
        bench.answers.gate.set()
        await bench.settle()
        assert (len(bench.answers.shards[0]), bench.counts, bench.rows.rows) == (1, {}, {})


async def test_an_answer_that_could_not_be_kept_is_not_asked_for_again() -> None:
    """The brokers were away when the partition was revoked; it comes back, and the answer is still here."""
    async with Bench() as bench:
        bench.answers.is_refusing = True
        bench.take(value_of())
        await bench.settle()
        await bench.analyst.drain(6, 1)
        bench.revoke()
        await bench.settle()
        puts = len(bench.answers.puts)
        await bench.settle()
        assert len(bench.answers.puts) == puts, "keeping it is given up"
        bench.assign_again()
        bench.answers.is_refusing = False
        bench.take(value_of())
        await bench.settle()
        assert (bench.analyser.asked, bench.counts, bench.is_all_finished) == ([PARCEL], {"analysed": 1}, True)
        assert len(bench.answers.shards[0]) == 1


async def test_an_answer_that_another_worker_kept_is_cached() -> None:
    """The one that could not be kept here need not be kept any more."""
    async with Bench() as bench, Bench() as other:
        bench.answers.is_refusing = True
        for owner in (bench, other):
            owner.take(value_of())
            await owner.settle()
        await bench.analyst.drain(6, 1)
        bench.revoke()
        bench.assign_again()
        bench.answers.shards = other.answers.shards
        bench.take(value_of())
        await bench.settle()
        assert (bench.counts, bench.is_all_finished) == ({"cached": 1}, True)


def recorded(bench: Bench) -> list[tuple[str, str, int]]:
    """Conversation, outcome and cost of each call in the table."""
    return [(call.conversation_id, call.outcome, call.cost_usd_ticks) for call in bench.rows.calls.values()]


async def test_an_answered_call_is_recorded_once() -> None:
    """It is recorded for the record that waited longest, with its identifiers; equal texts, now and later, do not
    record it again."""
    async with Bench() as bench:
        bench.take(value_of(id="a"), value_of(id="b"))
        await bench.settle()
        bench.take(value_of(id="later"))
        await bench.settle()
        assert [job.call is not None for job in bench.events.sent] == [True, False, False]
        [call] = bench.rows.calls.values()
        row = bench.row("a")
        assert row is not None
        assert (call.tenant, call.text_key, call.analysis_version) == ("default", row.text_key, "v1")
        assert (call.ended_at, call.model, recorded(bench)) == (NOON, MODEL, [("a", "answered", 5_000)])


async def test_a_record_that_is_read_again_after_a_crash_records_its_call() -> None:
    """The worker that paid ended between answer and row; the next one finds the answer, and with it the call."""
    record = a_record(value_of(), offset=0, timestamp=round(NOON.timestamp() * 1000))
    async with Bench() as bench:
        bench.rows.gate.clear()
        bench.analyst.take(bench.tracker, [record], rehomed=False)
        await bench.settle()
        await bench.analyst.drain(0, 0)
        bench.revoke()
        assert bench.rows.calls == {}
        bench.rows.gate.set()
        bench.assign_again()
        bench.analyst.take(bench.tracker, [record], rehomed=False)
        await bench.settle()
        assert (bench.outcomes, recorded(bench)) == ({"c-1": "cached"}, [("c-1", "answered", 5_000)])


async def test_a_worker_that_stood_by_records_the_call_of_one_that_was_killed() -> None:
    """However long it had waited for partitions, or for Postgres, when the other one paid."""
    record = a_record(value_of(), offset=0, timestamp=round(NOON.timestamp() * 1000))
    async with Bench() as killed:
        killed.rows.gate.clear()
        killed.analyst.take(killed.tracker, [record], rehomed=False)
        await killed.settle()
    async with Bench(now=NOON - timedelta(hours=1)) as bench:
        bench.now = NOON + timedelta(minutes=2)
        bench.answers.shards = killed.answers.shards
        bench.analyst.take(bench.tracker, [record], rehomed=False)
        await bench.settle()
        assert (bench.outcomes, recorded(bench)) == ({"c-1": "cached"}, [("c-1", "answered", 5_000)])


async def test_an_answer_that_has_expired_since_keeps_its_call() -> None:
    """The record is asked about again, which is another call."""
    record = a_record(value_of(), offset=0, timestamp=round(NOON.timestamp() * 1000))
    async with Bench() as killed:
        killed.rows.gate.clear()
        killed.analyst.take(killed.tracker, [record], rehomed=False)
        await killed.settle()
    async with Bench(now=NOON + 2 * CACHE_TTL) as bench:
        bench.answers.shards = killed.answers.shards
        bench.analyser.gate.clear()
        bench.analyst.take(bench.tracker, [record], rehomed=False)
        await bench.settle()
        assert (bench.outcomes, recorded(bench)) == ({}, [("c-1", "answered", 5_000)])
        assert bench.analyser.asked == [PARCEL]


async def test_calls_without_an_answer_are_recorded_whatever_becomes_of_the_text() -> None:
    """Answered in the end, or dead: a bad answer cost something, and a lost reply may have."""
    bad, lost = (UnansweredCall("bad_answer", MODEL, NOON - timedelta(seconds=n), Usage(9, 1, n)) for n in (2, 1))
    async with Bench() as bench:
        bench.analyser.unanswered = {PARCEL: [bad], "text that is refused": [lost]}
        bench.analyser.errors["text that is refused"] = REFUSED
        bench.take(value_of(), value_of("text that is refused", id="refused"))
        await bench.settle()
        assert bench.outcomes == {"c-1": "analysed", "refused": "dead"}
        assert sorted(recorded(bench)) == [
            ("c-1", "answered", 5_000),
            ("c-1", "bad_answer", 2),
            ("refused", "bad_answer", 1),
        ]


async def test_a_call_that_a_drain_cancels_is_recorded() -> None:
    """It may be billed, and no other worker can know of it."""
    async with Bench() as bench:
        bench.analyser.gate.clear()
        bench.take(value_of())
        await bench.settle()
        await bench.analyst.drain(1, 1)
        await bench.settle()
        assert recorded(bench) == [("c-1", "ambiguous", 0)]


async def test_calls_wait_for_the_database_beyond_their_assignment() -> None:
    """Records are read again by the next owner, calls are not."""
    async with Bench() as bench:
        bench.rows.gate.clear()
        bench.analyser.gate.clear()
        bench.take(value_of())
        await bench.settle()
        await bench.analyst.drain(1, 1)
        bench.revoke()
        assert bench.rows.calls == {}
        bench.rows.gate.set()
        await bench.settle()
        assert recorded(bench) == [("c-1", "ambiguous", 0)]


@pytest.mark.parametrize("is_refusing", [True, False])
async def test_a_call_whose_records_were_revoked_is_recorded(is_refusing: bool) -> None:
    """Whether or not the changelog took the answer in the end."""
    async with Bench() as bench:
        bench.answers.gate.clear()
        bench.answers.is_refusing = is_refusing
        bench.take(value_of())
        await bench.settle()
        bench.take(value_of("an answer that waits behind the other one", id="waits"))
        await bench.settle()
        await bench.analyst.drain(1, 1)
        bench.revoke()
        bench.answers.gate.set()
        await bench.settle()
        assert bench.outcomes == {}
        assert sorted(recorded(bench)) == [("c-1", "answered", 5_000), ("waits", "answered", 5_000)]


async def test_a_row_that_postgres_refuses_does_not_hide_its_call() -> None:
    """The dead row brings it along."""
    async with Bench() as bench:
        bench.rows.refused["c-1"] = Unprocessable(DeadLetterReason.UNSTORABLE, "refused")
        bench.take(value_of())
        await asyncio.sleep(0)
        bench.dead_letters.gate.clear()
        await bench.settle()
        bench.rows.refused.clear()
        bench.dead_letters.gate.set()
        await bench.settle()
        assert (bench.outcomes, recorded(bench)) == ({"c-1": "dead"}, [("c-1", "answered", 5_000)])


async def test_a_call_is_stored_without_its_row_if_postgres_takes_none() -> None:
    """What it refuses in the row is in the dead row as well."""
    async with Bench() as bench:
        bench.rows.refused["c-1"] = Unprocessable(DeadLetterReason.UNSTORABLE, "refused")
        bench.take(value_of())
        await bench.settle()
        assert (bench.is_all_finished, bench.outcomes) == (True, {})
        assert recorded(bench) == [("c-1", "answered", 5_000)]


async def test_answers_that_are_free_are_no_calls() -> None:
    """Answers of the local analyser are not recorded, neither now nor from the cache."""
    async with Bench() as bench:
        bench.analyser.is_paid = False
        bench.take(value_of(id="a"))
        await bench.settle()
        bench.take(value_of(id="b"))
        await bench.settle()
        assert (bench.counts, recorded(bench)) == ({"analysed": 1, "cached": 1}, [])
