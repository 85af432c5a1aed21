"""The fake rows and Postgres keep the same promises."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest
from streams.pipeline.delivery import Rows
from streams.sinks.postgres import PostgresSink

from schemas.errors import Fatal, Retryable, Unprocessable
from tests.fakes.analysis import NOON, a_result
from tests.fakes.sinks import FakeRows


class Stored:
    """Rows under test, with a way to see which outcome stands for an id."""

    def __init__(self, rows: Rows, connection: asyncpg.Connection | None = None) -> None:
        self.rows = rows
        self._connection = connection

    async def outcome(self, conversation_id: str = "c-1", tenant: str = "default") -> str | None:
        if self._connection is not None:
            query = "SELECT outcome FROM insights WHERE tenant = $1 AND conversation_id = $2"
            return await self._connection.fetchval(query, tenant, conversation_id)
        assert isinstance(self.rows, FakeRows)
        row = self.rows.rows.get((tenant, conversation_id))
        return row.outcome if row else None


@pytest.fixture(params=["fake", "postgres"])
def stored(request: pytest.FixtureRequest, sink: PostgresSink, connection: asyncpg.Connection) -> Stored:
    return Stored(FakeRows()) if request.param == "fake" else Stored(sink, connection)


async def test_the_same_result_again_changes_nothing(stored: Stored) -> None:
    """A redelivery after a crash finds its row: what was analysed is not called cached."""
    await stored.rows.write(a_result())
    await stored.rows.write(a_result(outcome="cached"))
    assert await stored.outcome() == "analysed"


async def test_the_newest_occurrence_wins(stored: Stored) -> None:
    """Whatever the order in which they come."""
    later = NOON + timedelta(seconds=1)
    await stored.rows.write(a_result(outcome="cached", occurred_at=later))
    await stored.rows.write(a_result(outcome="analysed"))
    assert await stored.outcome() == "cached"


async def test_a_replayed_dead_conversation_gets_its_outcome(stored: Stored) -> None:
    """Dead is the one outcome that a later one of the same occurrence replaces."""
    await stored.rows.write(a_result(outcome="dead", insight=None, reason="bad_answer"))
    await stored.rows.write(a_result())
    await stored.rows.write(a_result(outcome="dead", insight=None, reason="bad_answer"))
    assert await stored.outcome() == "analysed"


async def test_tenants_have_rows_of_their_own(stored: Stored) -> None:
    """The same id of another tenant is another conversation."""
    await stored.rows.write(a_result(outcome="analysed"))
    await stored.rows.write(a_result(outcome="cached", tenant="acme"))
    assert (await stored.outcome(), await stored.outcome(tenant="acme")) == ("analysed", "cached")


async def test_equal_ids_in_one_batch_do_not_stop_it(stored: Stored) -> None:
    """Written at the same moment, they end up in one statement: the newest stands."""
    times = [NOON + timedelta(seconds=n) for n in range(40)]
    writes = [stored.rows.write(a_result(outcome="cached", occurred_at=at)) for at in times[:-1]]
    await asyncio.gather(*writes, stored.rows.write(a_result(outcome="filtered", insight=None, occurred_at=times[-1])))
    assert await stored.outcome() == "filtered"


async def test_every_column_comes_back(sink: PostgresSink, connection: asyncpg.Connection) -> None:
    """What the row holds is what the result said."""
    await sink.write(
        a_result(
            source="shop",
            text_key="ab",
            analysis_version="v1",
            model="m",
            prompt_tokens=1,
            completion_tokens=2,
            cost_usd_ticks=3,
        )
    )
    row = dict(await connection.fetchrow("SELECT * FROM insights"))
    assert row["topics"] == ["refund", "billing"]
    assert (row["sentiment"], row["urgency"], row["action_needed"], row["language"]) == ("negative", "high", True, "en")
    assert (row["source"], row["model"], row["text_key"], row["analysis_version"]) == ("shop", "m", "ab", "v1")
    assert (row["prompt_tokens"], row["completion_tokens"], row["cost_usd_ticks"]) == (1, 2, 3)
    assert (row["origin_topic"], row["origin_partition"], row["origin_offset"]) == ("conversations", 1, 2)
    assert (row["occurred_at"], row["extra"]) == (NOON, '{"a": [1, "b"]}')


async def test_one_bad_row_does_not_stop_its_batch(sink: PostgresSink, connection: asyncpg.Connection) -> None:
    """Only the row that Postgres refuses fails; the hundred beside it are stored."""
    good = [sink.write(a_result(id=f"c-{n}")) for n in range(100)]
    bad = sink.write(a_result(id="bad\0id"))
    *stored, refused = await asyncio.gather(*good, bad, return_exceptions=True)
    assert stored == [None] * 100
    assert isinstance(refused, Unprocessable)
    assert await connection.fetchval("SELECT count(*) FROM insights") == 100


async def test_a_cut_connection_is_waited_out(sink: PostgresSink, connection: asyncpg.Connection) -> None:
    """Whoever writes does not hear of it: the next attempt has a new connection."""
    await sink.write(a_result(id="before"))
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await asyncio.gather(*(sink.write(a_result(id=f"after-{n}")) for n in range(10)))
    assert await connection.fetchval("SELECT count(*) FROM insights") == 11


async def test_a_database_without_tables_is_told(postgres: object) -> None:
    """The hint names the command that helps."""
    with pytest.raises(Fatal) as caught:
        await PostgresSink(postgres.url).start()  # type: ignore[attr-defined]
    assert "migrate" in caught.value.hint


async def test_a_database_that_does_not_answer_is_waited_for() -> None:
    """Nobody listens there yet: the worker tries again."""
    with pytest.raises(Retryable):
        await PostgresSink("postgresql://user:secret@127.0.0.1:1/none").start()
