"""Reads the evidence: new records of the topics, of the group's log and of the journal, and all rows."""

from pathlib import Path
from typing import Any

import asyncpg
from aiokafka import TopicPartition

from streams.kafka.scan import bounds, scan
from tests.chaos.evidence import GROUP_TOPIC, Evidence
from tests.support.topics import TOPICS

_ROWS = """
SELECT insights.*, pg_xact_commit_timestamp(chaos_written.xmin) AS written_at
FROM insights LEFT JOIN chaos_written USING (tenant, conversation_id)
"""
_TOPICS = (*TOPICS.messages, TOPICS.answers_changelog)


class Witness:
    """Sees a world from outside; `evidence` is complete up to the latest `look`."""

    def __init__(self, bootstrap_servers: str, database_url: str, journal: Path) -> None:
        self._options: dict[str, Any] = {"bootstrap_servers": bootstrap_servers}
        self._database_url = database_url
        self._journal = journal
        self._journal_read_bytes = 0
        self._read_up_to: dict[TopicPartition, int] = {}
        self.evidence = Evidence()

    async def look(self) -> Evidence:
        """Reads new evidence up to the current ends."""
        self._read_journal()
        await self._read_topics()
        connection = await asyncpg.connect(self._database_url, timeout=10)
        try:
            self.evidence.rows = [dict(row) for row in await connection.fetch(_ROWS)]
        finally:
            await connection.close()
        return self.evidence

    async def row_count(self) -> int:
        """Returns how many rows there are; the query is cheap."""
        connection = await asyncpg.connect(self._database_url, timeout=10)
        try:
            return int(await connection.fetchval("SELECT count(*) FROM insights"))
        finally:
            await connection.close()

    async def _read_topics(self) -> None:
        # The group's end first: for each commit that is read, the outcomes before it are read too.
        edges = await bounds(self._options, TOPICS, [GROUP_TOPIC])
        edges |= await bounds(self._options, TOPICS, _TOPICS)
        wanted = {at: (self._read_up_to.get(at, begin), end) for at, (begin, end) in edges.items()}
        async for records in scan(self._options, wanted):
            for record in records:
                self.evidence.absorb(record)
        self._read_up_to |= {at: end for at, (_, end) in edges.items()}

    def _read_journal(self) -> None:
        with self._journal.open("rb") as journal:
            journal.seek(self._journal_read_bytes)
            for line in journal:
                if not line.endswith(b"\n"):
                    break  # being written just now
                self.evidence.absorb_journal(line)
                self._journal_read_bytes += len(line)
