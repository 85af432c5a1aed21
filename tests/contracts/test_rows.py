"""The fake rows and Postgres behave alike."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from agents.analyst import RowResults, Rows
from schemas.call import PaidCall
from schemas.conversation import Repair
from schemas.errors import Fatal, Retryable, Unprocessable
from schemas.result import ConversationResult
from streams.dev.local.postgres import Postgres
from streams.sinks.rows import RowSink
from tests.fakes.sinks import FakeRows
from tests.support.factories import NOON, a_call, a_result, result_jobs

README = Path(__file__).parents[2] / "README.md"
LATER = NOON + timedelta(seconds=1)


class Stored:
    """Rows under test, with a way to read the outcome of an id."""

    def __init__(self, rows: Rows, connection: asyncpg.Connection | None = None) -> None:
        self.rows = rows
        self._connection = connection

    async def write(self, *results: ConversationResult) -> RowResults:
        return await self.rows.write(result_jobs(*results))

    async def calls(self) -> list[PaidCall]:
        if self._connection is not None:
            return [PaidCall(**record) for record in await self._connection.fetch("SELECT * FROM calls")]
        assert isinstance(self.rows, FakeRows)
        return list(self.rows.calls.values())

    async def outcome(self, conversation_id: str = "c-1", tenant: str = "default") -> str | None:
        return await self._value("outcome", conversation_id, tenant)

    async def reason(self) -> str | None:
        return await self._value("reason", "c-1", "default")

    async def repairs(self) -> list[str]:
        return list(await self._value("repairs", "c-1", "default"))

    async def _value(self, column: str, conversation_id: str, tenant: str) -> Any:
        if self._connection is not None:
            query = f"SELECT {column} FROM insights WHERE tenant = $1 AND conversation_id = $2"  # noqa: S608  ours
            return await self._connection.fetchval(query, tenant, conversation_id)
        assert isinstance(self.rows, FakeRows)
        return getattr(self.rows.rows.get((tenant, conversation_id)), column, None)


@pytest.fixture(params=["fake", "postgres"])
def stored(request: pytest.FixtureRequest) -> Stored:
    if request.param == "fake":
        return Stored(FakeRows())
    return Stored(request.getfixturevalue("sink"), request.getfixturevalue("connection"))


async def test_every_job_of_a_batch_is_stored(stored: Stored) -> None:
    """In the order given, and nothing is refused or blocked."""
    jobs = result_jobs(*(a_result(id=f"c-{n}") for n in range(3)))
    assert await stored.rows.write(jobs) == RowResults(jobs, [], [])
    assert [await stored.outcome(f"c-{n}") for n in range(4)] == [*["analysed"] * 3, None]


async def test_a_result_that_is_delivered_again_changes_nothing(stored: Stored) -> None:
    """A redelivery after a crash finds its row: what was analysed is not called cached."""
    await stored.write(a_result())
    await stored.write(a_result(outcome="cached"))
    assert await stored.outcome() == "analysed"


async def test_the_newest_occurrence_wins(stored: Stored) -> None:
    """Whatever the order in which they come; the older one counts as stored."""
    await stored.write(a_result(outcome="cached", occurred_at=LATER, text_key="another"))
    written = await stored.write(a_result(outcome="analysed"))
    assert (len(written.stored), await stored.outcome()) == (1, "cached")
    await stored.write(a_result(outcome="filtered", insight=None, occurred_at=LATER + timedelta(seconds=1)))
    assert await stored.outcome() == "filtered"


@pytest.mark.parametrize("is_one_batch", [True, False])
async def test_the_same_text_again_changes_nothing(stored: Stored, is_one_batch: bool) -> None:
    """Posting an id again does not turn an analysed, paid row into a cached, free one."""
    results = [a_result(text_key="text", analysis_version="v1", cost_usd_ticks=3_435_000)]
    results += [a_result(outcome="cached", text_key="text", analysis_version="v1", occurred_at=LATER)]
    results += [a_result(outcome="dead", insight=None, text_key="text", occurred_at=LATER)]
    for batch in [results] if is_one_batch else [[result] for result in results]:
        await stored.write(*batch)
    assert await stored.outcome() == "analysed"


async def test_the_row_of_a_text_has_its_cost_whichever_record_is_written_first(stored: Stored) -> None:
    """Two batches are in flight at once, so the cached record's row may be there before that of the paid one."""
    clamped = (Repair.OCCURRED_AT_CLAMPED,)
    cached = a_result(outcome="cached", text_key="text", analysis_version="v1", occurred_at=LATER, repairs=clamped)
    await stored.write(cached)
    await stored.write(a_result(text_key="text", analysis_version="v1", cost_usd_ticks=3_435_000))
    assert (await stored.outcome(), await stored.repairs()) == ("analysed", list(clamped))
    await stored.write(a_result(outcome="filtered", text_key="another", occurred_at=LATER - timedelta(seconds=1)))
    assert await stored.outcome() == "analysed", "the time of the cached record is kept"


async def test_a_text_that_comes_late_replaces_no_newer_one(stored: Stored) -> None:
    """Records of one id may be in several partitions, so they may be processed in another order than posted."""
    one = [a_result(text_key="one", occurred_at=NOON + timedelta(seconds=n)) for n in (0, 2)]
    for result in (*one, a_result(outcome="cached", text_key="two", occurred_at=LATER)):
        await stored.write(result)
    assert await stored.outcome() == "analysed"


@pytest.mark.parametrize("is_one_batch", [True, False])
async def test_of_two_texts_of_one_time_the_one_received_last_counts(stored: Stored, is_one_batch: bool) -> None:
    """A conversation grows, is corrected or is redacted, and its last message keeps its time."""
    results = [a_result(text_key="first"), a_result(outcome="cached", text_key="last", received_at=LATER)]
    for batch in [results] if is_one_batch else [[results[n]] for n in (0, 1, 0)]:
        await stored.write(*batch)
    assert await stored.outcome() == "cached"


async def test_another_analysis_of_the_same_text_replaces_the_row(stored: Stored) -> None:
    """After a change of prompt or model, texts are sent again to be analysed again."""
    await stored.write(a_result(text_key="text", analysis_version="v1"))
    await stored.write(a_result(outcome="cached", text_key="text", analysis_version="v2", occurred_at=LATER))
    assert await stored.outcome() == "cached"


async def test_a_dead_conversation_that_is_sent_again_gets_its_outcome(stored: Stored) -> None:
    """Also with the same text."""
    await stored.write(a_result(outcome="dead", insight=None, reason="bad_answer", text_key="text"))
    await stored.write(a_result(outcome="filtered", insight=None, text_key="text", occurred_at=LATER))
    assert await stored.outcome() == "filtered"


@pytest.mark.parametrize("is_one_batch", [True, False])
@pytest.mark.parametrize("is_last", [True, False])
async def test_a_record_that_failed_its_check_replaces_no_valid_one(
    stored: Stored, is_one_batch: bool, is_last: bool
) -> None:
    """When it took place is unknown. A corrected record, sent again with its own time, gets the row."""
    failed = a_result(outcome="dead", insight=None, reason="invalid", text_key=None, occurred_at=LATER)
    results = [a_result(outcome="filtered", insight=None), failed][:: 1 if is_last else -1]
    for batch in [results] if is_one_batch else [[result] for result in results]:
        await stored.write(*batch)
    assert await stored.outcome() == "filtered"
    await stored.write(a_result(outcome="cached", text_key="newer", occurred_at=NOON + timedelta(seconds=1)))
    assert await stored.outcome() == "cached", "the time of the failed record counts for nothing"


@pytest.mark.parametrize("is_one_batch", [True, False])
async def test_of_two_records_that_failed_their_check_the_later_one_has_the_row(
    stored: Stored, is_one_batch: bool
) -> None:
    """Its reason is the one to mend."""
    reasons = ("too_large", "invalid", "not_json")
    results = [
        a_result(
            outcome="dead", insight=None, reason=reason, text_key=None, occurred_at=NOON + timedelta(seconds=second)
        )
        for second, reason in enumerate(reasons)
    ]
    for batch in [results] if is_one_batch else [[results[n]] for n in (0, 2, 1)]:
        written = await stored.write(*batch)
        assert len(written.stored) == len(batch)
    assert await stored.reason() == "not_json"


async def test_the_newest_text_of_a_batch_counts(stored: Stored) -> None:
    """Not the text that was analysed."""
    newest = a_result(outcome="cached", text_key="new", occurred_at=LATER)
    await stored.write(a_result(text_key="old"), newest)
    assert await stored.outcome() == "cached"


async def test_a_call_is_recorded_with_its_row_and_once(stored: Stored) -> None:
    """Delivered again after a crash, by the same conversation or another one with the same text."""
    for id_ in ("c-1", "c-1", "c-2"):
        [job] = result_jobs(a_result(id=id_))
        job.call = a_call(conversation_id=id_)
        await stored.rows.write([job])
    assert await stored.calls() == [a_call()]


async def test_every_call_is_kept_beside_the_others(stored: Stored) -> None:
    """The cost of another text of the same id, of an earlier bad answer and of a lost reply never disappears."""
    calls = [
        a_call(),
        a_call(text_key="another text"),
        a_call(analysis_version="v2"),
        a_call(tenant="acme"),
        a_call(ended_at=LATER, outcome="bad_answer"),
        a_call(ended_at=LATER + timedelta(microseconds=1), outcome="ambiguous", cost_usd_ticks=0),
    ]
    for _ in range(2):
        await stored.rows.write_calls(calls)
    assert sorted(map(repr, await stored.calls())) == sorted(map(repr, calls))


async def test_a_call_of_a_row_that_is_refused_is_recorded_when_it_died(stored: Stored) -> None:
    """The provider was paid whatever Postgres says; the dead row brings the call along."""
    [job] = result_jobs(a_result(id="bad\0id"))
    if isinstance(stored.rows, FakeRows):
        stored.rows.refused["bad\0id"] = Unprocessable("unstorable", "refused")
    job.call = a_call()
    assert len((await stored.rows.write([job])).refused) == 1
    assert await stored.calls() == []
    job.result = a_result(outcome="dead", insight=None, reason="unstorable")
    await stored.rows.write([job])
    assert await stored.calls() == [a_call()]


async def test_calls_and_rows_of_two_batches_in_flight_never_deadlock(
    sink: RowSink, connection: asyncpg.Connection
) -> None:
    """Both take the same keys, in opposite orders."""
    for attempt in range(5):
        jobs = result_jobs(*(a_result(id=f"c-{n}") for n in range(200)))
        for number, job in enumerate(jobs):
            job.call = a_call(text_key=f"{attempt} {number}")
        await asyncio.gather(sink.write(jobs), sink.write(jobs[::-1]))
    assert await connection.fetchval("SELECT count(*) FROM calls") == 1_000
    query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert await connection.fetchval(query) == 0


async def test_the_spend_of_a_day_never_shrinks(sink: RowSink, connection: asyncpg.Connection) -> None:
    """By the README's own query, while ids are posted again with the same text and with others."""
    query = README.read_text().partition("```sql\n")[2].partition("```")[0]
    spent: list[Decimal] = []
    now = datetime.now(UTC)
    for second, text in enumerate(["first", "first", "second", "first"]):
        at = NOON + timedelta(seconds=second)
        [job] = result_jobs(a_result(outcome="cached" if text == "first" and second else "analysed", occurred_at=at))
        job.call = a_call(text_key=text, ended_at=now)
        await sink.write([job])
        [day] = await connection.fetch(query)
        spent.append(day["usd"])
    assert spent == [Decimal(usd) for usd in ("0.0000005", "0.0000005", "0.000001", "0.000001")]


async def test_a_replayed_dead_conversation_gets_its_outcome(stored: Stored) -> None:
    """Dead is the one outcome that a later one of the same occurrence replaces."""
    dead = a_result(outcome="dead", insight=None, reason="bad_answer")
    for result in (dead, a_result(), dead):
        await stored.write(result)
    assert await stored.outcome() == "analysed"


async def test_tenants_have_rows_of_their_own(stored: Stored) -> None:
    """The same id of another tenant is another conversation."""
    await stored.write(a_result(outcome="analysed"), a_result(outcome="cached", tenant="acme"))
    assert (await stored.outcome(), await stored.outcome(tenant="acme")) == ("analysed", "cached")


async def test_equal_ids_in_one_batch_do_not_stop_it(stored: Stored) -> None:
    """One statement may touch a row only once: the newest of them is written."""
    times = [NOON + timedelta(seconds=n) for n in range(40)]
    last = a_result(outcome="filtered", insight=None, occurred_at=times.pop(), text_key="another")
    written = await stored.write(last, *(a_result(outcome="cached", occurred_at=at) for at in times))
    assert (len(written.stored), await stored.outcome()) == (40, "filtered")


async def test_jobs_that_are_no_longer_wanted_are_left_out(stored: Stored) -> None:
    """Their partition was revoked: its next owner writes their rows."""
    revoked, wanted = jobs = result_jobs(a_result(id="revoked"), a_result(id="wanted"))
    revoked.tracker.is_revoked = True
    assert await stored.rows.write(jobs) == RowResults([wanted], [], [])
    assert await stored.outcome("revoked") is None


async def test_one_bad_row_does_not_stop_its_batch(stored: Stored) -> None:
    """Only the row that Postgres refuses is handed back; the 499 beside it are stored."""
    bad_id = "bad\0id"
    if isinstance(stored.rows, FakeRows):
        stored.rows.refused[bad_id] = Unprocessable("unstorable", "refused")
    jobs = result_jobs(*(a_result(id=bad_id if n == 250 else f"c-{n}") for n in range(500)))
    written = await stored.rows.write(jobs)
    [(refused, error)] = written.refused
    assert (refused, type(error)) == (jobs[250], Unprocessable)
    assert {job.id for job in written.stored} == {job.id for job in jobs if job is not refused}
    assert (len(written.stored), written.blocked) == (499, [])


async def test_every_column_comes_back(sink: RowSink, connection: asyncpg.Connection) -> None:
    """The row holds what the result said."""
    figures = {"prompt_tokens": 1, "completion_tokens": 2, "cost_usd_ticks": 3}
    words = {"source": "shop", "text_key": "ab", "analysis_version": "v1", "model": "m"}
    metadata, repairs = {"order": 10**30, "tags": ["a", None]}, (Repair.TEXT_CUT, Repair.OCCURRED_AT_CLAMPED)
    await sink.write(result_jobs(a_result(**figures, **words, metadata=metadata, repairs=repairs)))
    row = dict(await connection.fetchrow("SELECT * FROM insights"))
    assert row["topics"] == ["refund", "billing"]
    assert (row["sentiment"], row["urgency"], row["action_needed"], row["language"]) == ("negative", "high", True, "en")
    assert (row["origin_topic"], row["origin_partition"], row["origin_offset"]) == ("conversations", 1, 2)
    assert (row["occurred_at"], row["received_at"], row["extra"]) == (NOON, NOON, '{"a": [1, "b"]}')
    assert {name: row[name] for name in figures | words} == figures | words
    assert (json.loads(row["metadata"]), row["repairs"]) == (metadata, ["text_cut", "occurred_at_clamped"])


async def test_batches_are_written_side_by_side(sink: RowSink, connection: asyncpg.Connection) -> None:
    """Each on a connection of its own, and the connections are used again."""
    for attempt in range(3):
        batches = [result_jobs(a_result(id=f"{attempt}-{batch}")) for batch in range(2)]
        await asyncio.gather(*map(sink.write, batches))
    assert await connection.fetchval("SELECT count(*) FROM insights") == 6
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    assert await connection.fetchval(sessions) == 3  # two writers, and the one that pings


async def test_a_database_without_tables_is_named(postgres: Postgres) -> None:
    """The hint names the command that helps."""
    with pytest.raises(Fatal) as caught:
        await RowSink(postgres.url).start()
    assert "migrate" in caught.value.hint


async def test_a_database_that_does_not_answer_is_waited_for() -> None:
    """The worker retries."""
    sink = RowSink("postgresql://user:secret@127.0.0.1:1/none")
    for ask in (sink.start, sink.ping):
        with pytest.raises(Retryable):
            await ask()
    await sink.stop()


async def test_an_address_that_is_none_ends_the_worker() -> None:
    """The error does not quote it, since it may hold a password."""
    with pytest.raises(Fatal) as caught:
        await RowSink("mysql://user:secret@127.0.0.1/none").start()
    assert "secret" not in f"{caught.value.what} {caught.value.why} {caught.value.hint}"
