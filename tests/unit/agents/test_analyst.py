"""The seven steps of a record: its outcome, the order of the sinks, and the effect of failures."""

import asyncio
from typing import Any

import pytest
import structlog

from agents.analyst import MAX_HELD_BACK, MAX_OPEN_BYTES, MIN_FETCH_RECORDS
from schemas.conversation import Repair
from schemas.dead_letter import DeadLetterReason
from schemas.errors import Fatal, Retryable, Unprocessable
from tests.support.factories import NOON, PARCEL, PARTITIONS, WRITTEN_AT, a_record, a_tracker, owner_of, value_of
from tests.support.topics import TOPICS
from tests.unit.agents.bench import DEAD_LETTER_LIMIT, Bench

REFUSED = Unprocessable(DeadLetterReason.UNSTORABLE, "Postgres refuses the row: DataError")
DOWN = Retryable("Kafka: RequestTimedOutError")
#: The value of a record that our own decoder cannot deal with: a list makes msgspec raise TypeError.
DEFECT: Any = ["not bytes"]
#: A partition that does not own the text.
ELSEWHERE = (owner_of(PARCEL) + 1) % PARTITIONS


async def test_a_conversation_becomes_a_row_and_then_an_event() -> None:
    """The answer is in the table first, and the slot is finished last."""
    async with Bench() as bench:
        bench.events.gate.clear()
        bench.take(value_of())
        await bench.settle()
        assert (len(bench.answers.puts), bench.journal) == (1, [("row", 0)])
        assert (bench.tracker.committable, bench.counts) == (None, {})
        bench.events.gate.set()
        await bench.settle()
        assert (bench.journal, bench.counts) == ([("row", 0), ("event", 0)], {"analysed": 1})
        assert bench.is_all_finished


async def test_the_row_says_what_the_answer_said_and_cost() -> None:
    """The event carries the same result."""
    async with Bench() as bench:
        bench.take(value_of())
        await bench.settle()
        row = bench.row()
        assert row is not None
        assert (row.outcome, row.model, row.cost_usd_ticks, row.analysis_version) == (
            *("analysed", "some-model", 5_000, "v1"),
        )
        assert (row.origin.offset, row.analysed_at, row.reason) == (0, NOON, None)
        assert [job.result for job in bench.events.sent] == [row]


async def test_metadata_and_repairs_are_in_row_and_event() -> None:
    """The producer finds its own fields again, and what was changed."""
    async with Bench() as bench:
        bench.take(value_of(metadata={"order": 7}, occurred_at="2999-01-01T00:00:00Z"), value_of(id="plain"))
        await bench.settle()
        row, plain = bench.row(), bench.row("plain")
        assert row is not None
        assert plain is not None
        assert (row.metadata, row.repairs, row.occurred_at) == ({"order": 7}, (Repair.OCCURRED_AT_CLAMPED,), WRITTEN_AT)
        assert (plain.metadata, plain.repairs) == (None, ())
        assert [job.result for job in bench.events.sent] == [row, plain]


async def test_a_record_that_is_not_a_conversation_becomes_a_dead_letter() -> None:
    """It has no id, so there is no row, and its slot is finished."""
    async with Bench() as bench:
        bench.take(b"not json \xff", None)
        await bench.settle()
        assert bench.journal == [("dead letter", 0), ("dead letter", 1)]
        assert [job.outcome.reason for job in bench.dead_letters.sent] == ["undecodable", "undecodable"]
        assert (bench.counts, bench.is_all_finished) == ({"dead": 2}, True)


async def test_a_record_that_fails_its_check_has_a_row_if_its_id_can_be_read() -> None:
    """After its dead letter, and without what could not be read. The one beside it, without an id, has none."""
    async with Bench() as bench:
        bench.take(b'{"id":7,"text":5,"source":"chat"}', b'{"id":[7],"text":"where is my parcel"}')
        await bench.settle()
        assert bench.journal == [("dead letter", 0), ("dead letter", 1), ("row", 0)]
        row = bench.row("7")
        assert row is not None
        assert (row.outcome, row.reason, row.occurred_at) == ("dead", "invalid", WRITTEN_AT)
        assert (row.text_key, row.source, row.metadata, row.repairs) == (None, None, None, ())
        assert (bench.counts, bench.is_all_finished) == ({"dead": 2}, True)


async def test_a_record_that_fails_its_check_takes_no_row_from_a_valid_one() -> None:
    """Neither from an earlier one of its id, nor from one that comes after it and took place long before."""
    async with Bench() as bench:
        early, late = (value_of(id=id_, occurred_at="2026-01-01T00:00:00Z") for id_ in ("early", "late"))
        for value in (early, b'{"id":"early","text":5}', b'{"id":"late","text":5}', late):
            bench.take(value)
            await bench.settle()
        assert set(bench.outcomes) == {"early", "late"}
        assert set(bench.outcomes.values()) == {"analysed", "cached"}


async def test_a_defect_in_decoding_holds_only_that_record_back() -> None:
    """The other records of the fetch are analysed; nothing behind it is committed, and the log names its place once."""
    async with Bench() as bench:
        with structlog.testing.capture_logs() as logged:
            bench.take(value_of("first text"), DEFECT, value_of("third text"))
            await bench.settle()
        assert (bench.counts, bench.dead_letters.sends, bench.failures) == ({"analysed": 2}, [], [])
        assert (bench.tracker.committable, bench.analyst.open_records, bench.analyst.held_back_records) == (1, 1, 1)
        held_back = [entry for entry in logged if entry["event"] == "record_held_back"]
        assert [(e["topic"], e["partition"], e["offset"]) for e in held_back] == [(TOPICS.conversations, 0, 1)]
        with pytest.raises(Retryable, match="unforeseen errors: 1;"):
            await bench.analyst.check_none_held_back()


async def test_records_that_are_held_back_are_read_again() -> None:
    """The next owner reads them; its program may have been fixed."""
    async with Bench() as bench:
        bench.analyser.errors[PARCEL] = ZeroDivisionError()
        bench.take(value_of())
        await bench.settle()
        bench.revoke()
        bench.assign_again()
        bench.analyser.errors.clear()
        bench.take(value_of())
        await bench.settle()
        assert (bench.counts, bench.is_all_finished, bench.analyst.held_back_records) == ({"analysed": 1}, True, 0)


async def test_too_many_records_held_back_stop_the_worker_once() -> None:
    """Below the limit it continues. No record becomes a dead letter, and no offset past the first one is committed."""
    async with Bench() as bench:
        bench.take(value_of("first text"), *[DEFECT] * (MAX_HELD_BACK - 1))
        await bench.settle()
        assert bench.failures == []
        bench.take(DEFECT, DEFECT)
        await bench.settle()
        [failure] = bench.failures
        assert isinstance(failure, Fatal)
        assert (bench.dead_letters.sends, bench.tracker.committable) == ([], 1)


async def test_low_value_ends_in_any_partition_without_a_call() -> None:
    """It still has a row and an event, so that the rows account for everything."""
    async with Bench(partitions=PARTITIONS) as bench:
        bench.take(value_of("hello"))
        await bench.settle()
        row = bench.row()
        assert row is not None
        assert (row.outcome, row.reason, row.insight) == ("filtered", "greeting_or_thanks", None)
        assert (bench.analyser.asked, bench.journal) == ([], [("row", 0), ("event", 0)])


async def test_a_record_of_another_partitions_text_is_sent_there_and_ends_here() -> None:
    """It has no row yet, and counts as rehomed only."""
    async with Bench(partitions=PARTITIONS) as bench:
        bench.tracker = a_tracker(ELSEWHERE)
        bench.take(value_of())
        await bench.settle()
        assert (bench.journal, bench.counts, bench.analyser.asked) == ([("rehomed", 0)], {"rehomed": 1}, [])
        assert bench.is_all_finished


async def test_a_record_is_rehomed_once() -> None:
    """From then on it is analysed where it is, even if the number of partitions has changed meanwhile."""
    async with Bench(partitions=PARTITIONS) as bench:
        bench.tracker = a_tracker(ELSEWHERE, topic=TOPICS.rehomed)
        bench.take(value_of())
        await bench.settle()
        assert (bench.counts, bench.rehomed.sends) == ({"analysed": 1}, [])


async def test_a_record_too_large_to_be_rehomed_dies() -> None:
    """The topic of rehomed records refuses it permanently; it can be decoded, so it has a row."""
    async with Bench(partitions=PARTITIONS) as bench:
        bench.tracker = a_tracker(ELSEWHERE)
        bench.rehomed.errors[0] = [Unprocessable(DeadLetterReason.TOO_LARGE, "too large for the topic")]
        bench.take(value_of())
        await bench.settle()
        assert (bench.journal, bench.outcomes) == ([("dead letter", 0), ("row", 0)], {"c-1": "dead"})


async def test_a_dead_letter_comes_before_its_row_and_there_is_no_event() -> None:
    """The row names the reason."""
    async with Bench() as bench:
        bench.analyser.errors[PARCEL] = Unprocessable(DeadLetterReason.BAD_ANSWER, "no schema")
        bench.take(value_of())
        await bench.settle()
        assert bench.journal == [("dead letter", 0), ("row", 0)]
        row = bench.row()
        assert row is not None
        assert (row.outcome, row.reason, bench.counts) == ("dead", "bad_answer", {"dead": 1})


async def test_a_row_that_is_refused_makes_its_record_die() -> None:
    """It gets no event; the batch's other rows are stored."""
    async with Bench() as bench:
        bench.rows.refused["bad"] = REFUSED
        bench.take(value_of("bad row", id="bad"), value_of("good row", id="good"))
        await bench.settle()
        assert [job.outcome.reason for job in bench.dead_letters.sent] == ["unstorable"]
        assert [job.id for job in bench.events.sent] == ["good"]
        assert (bench.counts, bench.is_all_finished) == ({"dead": 1, "analysed": 1}, True)


async def test_a_row_that_a_defect_refuses_holds_its_record_back() -> None:
    """It gets neither dead letter nor event; the batch's other rows are stored."""
    async with Bench() as bench:
        bench.rows.refused["bad"] = ZeroDivisionError()
        bench.take(value_of("good row", id="good"), value_of("bad row", id="bad"))
        await bench.settle()
        assert (bench.dead_letters.sends, [job.id for job in bench.events.sent]) == ([], ["good"])
        assert (bench.counts, bench.tracker.committable) == ({"analysed": 1}, 1)


async def test_a_dead_record_whose_row_is_refused_is_finished() -> None:
    """Its dead letter is durable; otherwise it would die again without end."""
    async with Bench() as bench:
        bench.rows.refused["c-1"] = REFUSED
        bench.take(value_of())
        await bench.settle()
        assert (len(bench.dead_letters.sent), bench.counts, bench.outcomes) == (1, {"dead": 1}, {})
        assert bench.is_all_finished


async def test_an_event_that_is_refused_for_good_ends_the_worker() -> None:
    """A dead letter would be a second outcome beside the row. The slot stays open, so nothing is lost."""
    async with Bench() as bench:
        bench.events.errors[1] = [Unprocessable(DeadLetterReason.TOO_LARGE, "too large for the topic insights")]
        bench.take(value_of("first text", id="a"), value_of("second text", id="b"))
        await bench.settle()
        assert [type(failure) for failure in bench.failures] == [Fatal]
        assert (bench.outcomes["b"], bench.dead_letters.sends) == ("analysed", [])
        assert (bench.tracker.committable, bench.counts) == (1, {"analysed": 1})


async def test_a_dead_letter_that_is_refused_for_good_ends_the_worker() -> None:
    """The slot stays open."""
    async with Bench() as bench:
        bench.dead_letters.errors[0] = [REFUSED] * 10
        bench.take(b"not json")
        await bench.settle()
        assert (bench.failures, bench.tracker.committable) == ([REFUSED], None)


@pytest.mark.parametrize("sink", ["events", "rehomed", "dead_letters"])
async def test_only_what_the_brokers_did_not_take_is_sent_again(sink: str) -> None:
    """It is retried any number of times, and each record is delivered once. Rows of dead records may have to wait."""
    async with Bench(partitions=PARTITIONS) as bench:
        sender = getattr(bench, sink)
        sender.errors = {1: [DOWN] * 20, 2: [DOWN]}
        bench.tracker = a_tracker(ELSEWHERE if sink == "rehomed" else owner_of(PARCEL))
        if sink == "dead_letters":
            bench.analyser.errors[PARCEL] = REFUSED
            bench.rows.gate.clear()
        bench.take(*(value_of(id=f"c-{n}") for n in range(3)))
        await bench.settle()
        assert sender.sends == [[0, 1, 2], [1, 2], *[[1]] * 19]
        assert [job.source.offset for job in sender.sent] == [0, 2, 1]
        bench.rows.gate.set()
        await bench.settle()
        assert bench.is_all_finished


@pytest.mark.parametrize("sink", ["events", "rehomed", "dead_letters"])
async def test_nothing_of_a_revoked_assignment_is_sent_again(sink: str) -> None:
    """The next owner sends it; here the retries would never end."""
    async with Bench(partitions=PARTITIONS) as bench:
        sender = getattr(bench, sink)
        sender.errors = {0: [DOWN] * 1_000}
        bench.tracker = a_tracker(ELSEWHERE if sink == "rehomed" else owner_of(PARCEL))
        bench.take(b"not json" if sink == "dead_letters" else value_of())
        await bench.settle()
        bench.revoke()
        sends = len(sender.sends)
        await bench.settle()
        assert (len(sender.sends), sender.sent) == (sends, [])


async def test_blocked_rows_do_not_hold_others() -> None:
    """Neither rows of the same batch nor later ones wait; blocked rows are written once the lock is released."""
    async with Bench() as bench:
        bench.rows.blocked.add("blocked")
        bench.take(value_of(id="blocked"), value_of(id="beside"))
        await bench.settle()
        bench.take(value_of(id="later"))
        await bench.settle()
        assert (set(bench.outcomes), bench.tracker.committable) == ({"beside", "later"}, None)
        bench.rows.blocked.clear()
        await bench.settle()
        assert bench.is_all_finished


async def test_an_unforeseen_failure_of_the_rows_is_tried_again_then_ends_the_worker() -> None:
    """Nothing is dropped: the slots stay open."""
    async with Bench() as bench:
        bench.rows.failures = [ZeroDivisionError()] * 2
        bench.take(value_of(id="a"))
        await bench.settle()
        assert (bench.counts, bench.failures) == ({"analysed": 1}, [])
        bench.rows.failures = [ZeroDivisionError()] * 100
        bench.take(value_of(id="b"))
        await bench.settle()
        assert ([type(failure) for failure in bench.failures], bench.tracker.committable) == ([ZeroDivisionError], 1)


async def test_a_database_that_takes_no_rows_ends_the_worker_at_once() -> None:
    """Its tables are not as required."""
    async with Bench() as bench:
        fatal = Fatal("the database does not take rows")
        bench.rows.failures = [fatal]
        bench.take(value_of())
        await bench.settle()
        assert (bench.failures, bench.tracker.committable, bench.rows.rows) == ([fatal], None, {})


async def test_dead_letters_beyond_the_limit_are_not_sent_and_stay_open() -> None:
    """They have neither row nor count, and are read again once the cause is removed."""
    async with Bench() as bench:
        bench.take(*[b"not json"] * (DEAD_LETTER_LIMIT + 5))
        await bench.settle()
        assert (len(bench.dead_letters.sent), len(bench.halts)) == (DEAD_LETTER_LIMIT, 1)
        assert (bench.counts, bench.analyst.open_records) == ({"dead": DEAD_LETTER_LIMIT}, 5)
        assert (bench.tracker.committable, bench.failures) == (DEAD_LETTER_LIMIT, [])


async def test_what_ends_otherwise_interrupts_a_row_of_deaths() -> None:
    """Also a filtered conversation; one that is only rehomed does not."""
    for text, is_reached in (("hello", False), (PARCEL, True)):
        async with Bench(partitions=PARTITIONS) as bench:
            bench.tracker = a_tracker(ELSEWHERE)
            for value in (*[b"not json"] * (DEAD_LETTER_LIMIT - 1), value_of(text), b"not json"):
                bench.take(value)
                await bench.settle()
            assert bench.limit.is_reached is is_reached


async def test_nothing_of_a_revoked_assignment_is_finished_or_counted() -> None:
    """Whatever step its records are in: the next owner reads them again."""
    async with Bench(partitions=PARTITIONS) as bench:
        bench.tracker = a_tracker(ELSEWHERE)
        owned = a_tracker(owner_of(PARCEL))
        for gate in (bench.analyser.gate, bench.rows.gate, bench.rehomed.gate, bench.dead_letters.gate):
            gate.clear()
        bench.take(b"not json", value_of(), value_of("hello"))
        bench.take(value_of(), tracker=owned)
        await bench.settle()
        bench.revoke(owned)
        for gate in (bench.analyser.gate, bench.rows.gate, bench.rehomed.gate, bench.dead_letters.gate):
            gate.set()
        await bench.settle()
        assert (bench.rows.rows, bench.events.sends) == ({}, [])
        assert bench.counts == {"rehomed": 1}  # it was sent, and will be again
        assert (bench.tracker.committable, owned.committable, bench.analyst.open_records) == (None, None, 0)


async def test_room_is_what_is_not_open() -> None:
    """Every end gives its place back."""
    async with Bench(max_open_records=1_000) as bench:
        assert await bench.analyst.room() == 1_000
        bench.analyser.gate.clear()
        bench.take(value_of(id="a"), value_of("hello"), b"not json")
        assert (await bench.analyst.room(), bench.analyst.open_records) == (997, 3)
        await bench.settle()
        assert (await bench.analyst.room(), bench.analyst.open_records) == (999, 1)


async def test_room_waits_until_a_fetch_is_worth_it() -> None:
    """Each record that ends may complete the room."""
    async with Bench(max_open_records=4 * MIN_FETCH_RECORDS) as bench:
        bench.analyser.held["last text"] = asyncio.Event()
        bench.analyser.gate.clear()
        bench.take(*[value_of()] * 3 * MIN_FETCH_RECORDS, value_of("last text"))
        waiting = asyncio.create_task(bench.analyst.room())
        await bench.settle()
        assert not waiting.done()
        bench.analyser.held["last text"].set()
        assert await waiting == MIN_FETCH_RECORDS


async def test_room_waits_while_open_records_hold_too_many_bytes() -> None:
    """A few large ones are as much as thousands of small ones; the end of the assignment frees all of them."""
    async with Bench() as bench:
        bench.analyser.gate.clear()
        large = a_record(key=bytes(MAX_OPEN_BYTES), offset=0)
        bench.analyst.take(bench.tracker, [large], rehomed=False)
        waiting = asyncio.create_task(bench.analyst.room())
        await bench.settle()
        assert not waiting.done()
        bench.revoke()
        assert await waiting == 1_000


async def test_bytes_of_finished_records_are_free_again() -> None:
    """Counted with the key, as they were when the record was taken."""
    async with Bench() as bench:
        for offset in range(3):
            large = a_record(key=bytes(MAX_OPEN_BYTES), offset=offset)
            bench.analyst.take(bench.tracker, [large], rehomed=False)
            await bench.analyst.room()
        assert bench.is_all_finished
