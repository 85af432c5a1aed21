"""The whole service behind PgBouncer in transaction mode."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from tests.e2e.producer import produce
from tests.e2e.rows import count_rows
from tests.support.processes import Service, get
from tests.support.servers import running_pgbouncer

RECORDS = 40


@pytest.mark.slow
@pytest.mark.parametrize("broker", ["tansu"], indirect=True)
async def test_every_process_works_behind_a_pooler(
    service: Service, database_url: str, rows: asyncpg.Connection, tmp_path: Path
) -> None:
    """Two workers, a gateway, migrations and audits share two server connections."""
    folder = tmp_path / "pooler"
    folder.mkdir()
    with running_pgbouncer(database_url, folder) as url:
        service.settings["DATABASE_URL"] = url
        await asyncio.to_thread(service.run, "migrate")
        for name in ("worker-1", "worker-2"):
            await asyncio.to_thread(service.start_worker, name)
        await asyncio.to_thread(service.start_gateway)
        await produce(service, [f"where is my parcel number {n}" for n in range(RECORDS)])
        await count_rows(rows, RECORDS, timeout_s=60)
        for _ in range(20):
            assert (await asyncio.to_thread(get, f"{service.gateway_url}/api/v1/insights"))[0] == 200
            assert (await asyncio.to_thread(get, f"{service.gateway_url}/api/v1/conversations/none"))[0] == 404
        for _ in range(2):
            await asyncio.to_thread(service.run, "audit", "--strict", "--wait", "30")
