"""Runs an audit: topics, then rows, into the workbook; then the judge over it."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import Any

from aiokafka.errors import KafkaError

from schemas.errors import Fatal
from schemas.kafka import Topics
from streams.audit.books import Books
from streams.audit.entries import Entry
from streams.audit.judge import Judge
from streams.audit.rows_reading import check_database, row_entries
from streams.audit.topics_reading import TopicsReading
from streams.audit.workbook import Workbook
from streams.kafka.admin import check_topics
from streams.kafka.lag import ConnectingLagReader
from streams.terminal import Display

ASK_EVERY_S = 0.5
#: How many entries the judge takes between two signs of life.
_STRIDE = 2_000


async def run_audit(
    client_options: Mapping[str, Any],
    topics: Topics,
    database_url: str,
    display: Display,
    *,
    show: int,
    strict: bool,
    wait_s: float,
) -> Books:
    """Books that are closed; at most `show` faults are kept, and with `strict` what is pending or unchecked is one.

    Waits first until nothing is pending, at most `wait_s` seconds. Raises Fatal when a topic is
    missing, a broker or the database does not answer, or the temporary folder has no room.
    """
    books = Books(topics.inputs, show, strict=strict)
    try:
        await check_database(database_url)
        await check_topics(client_options, topics.messages)
        await _wait(ConnectingLagReader(client_options, topics), wait_s, display)
        with Workbook() as workbook:
            await _fill(workbook, books, TopicsReading(client_options, topics, books), database_url, display)
    except KafkaError as error:
        hint = "check KAFKA_BOOTSTRAP_SERVERS and that the broker runs"
        raise Fatal("the broker cannot be used", f"{type(error).__name__}: {error}", hint) from error
    books.check()
    return books


async def _wait(lag: ConnectingLagReader, wait_s: float, display: Display) -> None:
    if not wait_s:
        return
    try:
        async with asyncio.timeout(wait_s):
            await _until_idle(lag)
    except TimeoutError:
        display.say(f"records are still pending after {wait_s:g} s")
    finally:
        await lag.stop()


async def _until_idle(lag: ConnectingLagReader) -> None:
    """By asking again and again: a broker tells nobody of a commit."""
    while (await lag.read()).records:  # noqa: ASYNC110
        await asyncio.sleep(ASK_EVERY_S)


async def _fill(workbook: Workbook, books: Books, topics: TopicsReading, database_url: str, display: Display) -> None:
    read = 0
    display.begin("topics", await topics.look())
    async with aclosing(topics.entries()) as batches:
        async for batch in batches:
            workbook.add(batch)
            read += len(batch)
            display.reached("topics", read)
    display.done("topics")
    # After the topics: a row is written before its record is committed, and before its event is sent.
    async with aclosing(row_entries(database_url, lambda count: display.begin("rows", count))) as batches:
        async for batch in batches:
            workbook.add(batch)
            books.rows["read"] += len(batch)
            display.reached("rows", books.rows["read"])
    display.done("rows")
    holdings, whole = await topics.holdings()
    display.begin("compared", workbook.count)
    Judge(books, holdings, whole).judge(_shown(workbook.in_order(), display))
    display.done("compared")


def _shown(entries: Iterable[Entry], display: Display) -> Iterator[Entry]:
    count = 0
    for count, entry in enumerate(entries, start=1):
        yield entry
        if count % _STRIDE == 0:
            display.reached("compared", count)
    display.reached("compared", count)
