"""The log of a worker holds its work, and little else."""

import asyncio

import asyncpg
import pytest

from schemas.outcome import OUTCOME_NAMES
from tests.e2e.producer import produce
from tests.e2e.rows import count_rows
from tests.support.processes import Service

MAX_START_LINES = 9
TEXTS = ["where is my parcel", "I want my money back", "where is my parcel", "ok"]


@pytest.mark.parametrize("broker", ["tansu"], indirect=True)
async def test_a_worker_logs_what_it_did_and_nothing_of_its_libraries(
    service: Service, rows: asyncpg.Connection
) -> None:
    """Every line is JSON; a start has fewer than ten; the last minute's work is logged when it stops."""
    worker = await asyncio.to_thread(service.start_worker, "worker")
    at_start = worker.events()
    assert "partitions_assigned" in {event["event"] for event in at_start}
    assert len(at_start) <= MAX_START_LINES
    await produce(service, TEXTS)
    await count_rows(rows, len(TEXTS), timeout_s=30)
    assert await asyncio.to_thread(worker.stop) == 0
    events = worker.events()
    assert [event["event"] for event in events if not event["event"].isidentifier()] == []
    [done] = [event for event in events if event["event"] == "work_done"]
    assert sum(done[name] for name in OUTCOME_NAMES) == len(TEXTS)
    assert (done["filtered"], done["calls"], done["cost_usd"]) == (1, 0, 0)
    assert {"lag_records", "lag_seconds"} <= done.keys()


@pytest.mark.parametrize("broker", ["tansu"], indirect=True)
def test_settings_that_stop_a_worker_are_logged_as_json(bare_service: Service) -> None:
    """A log collector gets them as an event like any other."""
    worker = bare_service.start("worker", "worker", MAX_IN_FLIGHT="many")
    assert worker.process.wait(30) == 2
    [failed] = worker.events()
    assert failed["error"] == "the settings are invalid"
    assert "MAX_IN_FLIGHT" in failed["why"]
