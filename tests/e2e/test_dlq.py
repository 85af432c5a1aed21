"""10,000 dead letters replayed into a working service, with a kill, a worker that joins and one that leaves."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from aiokafka import TopicPartition
from streams.sinks.postgres import PostgresSink
from streams.sinks.producer import ConfirmedProducer

from schemas.dead_letter import DeadLetter, DeadLetterReason
from schemas.kafka import DEFAULT_TENANT, Header, Origin
from schemas.result import ConversationResult
from streams.dev.local.kafka import Kafka
from streams.dev.local.tansu import Tansu
from streams.dlq.filters import Filters
from streams.dlq.ledger import Ledger
from streams.dlq.letter import REPLAY_COUNT, REPLAY_LETTER
from streams.dlq.pace import Pace
from streams.dlq.reading import letter_bounds
from streams.dlq.replay import MAX_IN_FLIGHT, Orders, Replayed
from streams.dlq.run import replay_letters
from streams.dlq.selection import Selection
from streams.kafka.offset_reader import OffsetReader
from streams.sinks.dead_letters import DeadLetterSink
from tests.e2e.producer import texts_with_repeats
from tests.e2e.service import Process, Service
from tests.fakes.analysis import NOON
from tests.support.topics import TOPICS
from tests.topic_log import records_of

COUNT = 10_000
#: Slow enough that a worker joins long before the end.
RATE = "100"
SNAPSHOT = "SELECT * FROM insights ORDER BY conversation_id"
RESOLVED = "SELECT count(*) FROM insights WHERE outcome IN ('analysed', 'cached')"


def a_letter(number: int, text: str) -> DeadLetter:
    return DeadLetter(
        key=b"key-%d" % number,
        value=json.dumps({"id": f"conv-{number}", "text": text}).encode(),
        headers=[(Header.TIME, NOON.isoformat().encode())],
        reason=DeadLetterReason.REFUSED,
        detail="the provider refused the text",
        origin=Origin(TOPICS.conversations, 0, number),
        received_at=NOON,
        at=NOON,
    )


def a_dead_row(letter: DeadLetter, number: int) -> ConversationResult:
    return ConversationResult(
        tenant=DEFAULT_TENANT,
        id=f"conv-{number}",
        outcome="dead",
        occurred_at=NOON,
        received_at=NOON,
        analysed_at=NOON,
        origin=letter.origin,
        reason=letter.reason,
    )


async def let_die(bootstrap_servers: str, database_url: str, texts: list[str]) -> None:
    """What a worker leaves behind of conversations that died: letters and rows."""
    letters = [a_letter(number, text) for number, text in enumerate(texts)]
    producer, table = ConfirmedProducer({"bootstrap_servers": bootstrap_servers}), PostgresSink(database_url)
    await producer.start()
    await table.start()
    sink = DeadLetterSink(producer, TOPICS.dead_letters)
    await asyncio.gather(*(sink.send(letter, f"conv-{number}") for number, letter in enumerate(letters)))
    await asyncio.gather(*(table.write(a_dead_row(letter, number)) for number, letter in enumerate(letters)))
    await table.stop()
    await producer.stop()


async def eventually(condition: Callable[[], Any], *, within_s: float, what: str) -> None:
    try:
        async with asyncio.timeout(within_s):
            while not await condition():
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"not within {within_s:g} s: {what}") from None


async def nothing_is_left_to_read(reader: OffsetReader) -> bool:
    """The group has finished all that stands in the topics that it reads."""
    counts = await reader.partition_counts(TOPICS.inputs)
    partitions = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
    return all(position.start == position.end for position in (await reader.positions(partitions)).values())


async def settled(bootstrap_servers: str) -> None:
    reader = OffsetReader({"bootstrap_servers": bootstrap_servers}, TOPICS)
    await reader.start()
    try:
        await eventually(lambda: nothing_is_left_to_read(reader), within_s=120, what="all records are finished")
    finally:
        await reader.stop()


async def marked(bootstrap_servers: str) -> int:
    """Of each replay, one record is no mark: it has no value."""
    return sum(record.value is not None for record in await records_of(bootstrap_servers, TOPICS.replay_ledger))


def report_of(replay: Process) -> dict[str, Any]:
    """The last line of a replay's output, which is its report."""
    assert replay.process.wait(120) == 0, replay.log.read_text()
    report: dict[str, Any] = json.loads(replay.log.read_text().splitlines()[-1])
    return report


def start_replay(service: Service, name: str, *options: str) -> Process:
    return service.start(name, "dlq", "replay", "--all", "--json", *options)


async def replay_through_a_kill(service: Service, bootstrap_servers: str, first_worker: Process) -> None:
    """The first replay is killed after a worker joined; the second one goes on while a worker leaves."""
    killed = start_replay(service, "killed", "--rate", RATE)
    await asyncio.to_thread(service.start_worker, "worker-2")
    assert killed.process.poll() is None, killed.log.read_text()
    killed.kill()
    before = await marked(bootstrap_servers)
    assert 0 < before < COUNT
    goes_on = start_replay(service, "goes-on")
    assert await asyncio.to_thread(first_worker.stop) == 0
    report = await asyncio.to_thread(report_of, goes_on)
    assert (report["skipped"]["replayed_already"], report["sent"]) == (before, COUNT - before)
    await settled(bootstrap_servers)


async def replay_as_if_nothing_were_marked(bootstrap_servers: str) -> int:
    """How many were sent: what two replays at the same time, or the loss of the ledger, would come to at worst."""
    options, everything, done = {"bootstrap_servers": bootstrap_servers}, Selection(Filters(), Ledger()), Replayed()
    orders = Orders(Pace(None), lambda _: None)
    await replay_letters(
        options, TOPICS, await letter_bounds(options, TOPICS), everything, orders, done, asyncio.Event()
    )
    await settled(bootstrap_servers)
    return done.sent.total()


@pytest.mark.kafka
@pytest.mark.timeout(300)
@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
async def test_ten_thousand_letters_are_resolved_once(
    service: Service, broker: Kafka, database_url: str, rows: asyncpg.Connection
) -> None:
    """Every row is resolved and no letter left out; to replay all of it once more changes no row and makes no call."""
    service.start_standin("--latency-min-s", "0", "--latency-max-s", "0.02")
    texts = texts_with_repeats(COUNT, 0.3, seed=4)
    _, worker = await asyncio.gather(
        let_die(broker.bootstrap_servers, database_url, texts), asyncio.to_thread(service.start_worker, "worker-1")
    )
    assert await rows.fetchval("SELECT count(*) FROM insights WHERE outcome = 'dead'") == COUNT

    await replay_through_a_kill(service, broker.bootstrap_servers, worker)
    assert await rows.fetchval(RESOLVED) == await rows.fetchval("SELECT count(*) FROM insights") == COUNT
    stats = service.standin("control/stats")
    assert stats["distinct_texts"] == len(set(texts))
    assert stats["calls"] <= stats["distinct_texts"] + stats["cut_off"]
    names = [dict(sent.headers)[REPLAY_LETTER] for sent in await records_of(broker.bootstrap_servers, "conversations")]
    assert len(set(names)) == COUNT
    assert len(names) - COUNT <= MAX_IN_FLIGHT

    resolved = await rows.fetch(SNAPSHOT)
    again = await asyncio.to_thread(report_of, start_replay(service, "again"))
    assert (again["sent"], again["skipped"]["replayed_already"]) == (0, COUNT)
    assert await replay_as_if_nothing_were_marked(broker.bootstrap_servers) == COUNT
    assert await rows.fetch(SNAPSHOT) == resolved
    assert service.standin("control/stats")["calls"] == stats["calls"]


@pytest.mark.parametrize("broker", ["tansu"], indirect=True)
async def test_a_record_that_dies_again_is_a_new_letter(service: Service, broker: Tansu) -> None:
    """With its newest reason and the name of the old one, which counts as replayed."""
    options = {"bootstrap_servers": broker.bootstrap_servers}
    producer = ConfirmedProducer(options)
    await producer.start()
    await DeadLetterSink(producer, TOPICS.dead_letters).send(a_letter(0, ""), "conv-0")
    await producer.stop()
    await asyncio.to_thread(service.start_worker, "worker")
    assert report_of(start_replay(service, "replay"))["reasons"] == {"refused": 1}
    await settled(broker.bootstrap_servers)
    old, new = await records_of(broker.bootstrap_servers, TOPICS.dead_letters)
    headers = dict(new.headers)
    assert headers["dlq.reason"] == b"invalid"
    assert headers[REPLAY_LETTER].decode() == f"{old.partition}:{old.offset}"
    assert headers[REPLAY_COUNT] == b"1"
    assert report_of(start_replay(service, "dry", "--dry-run"))["to_send"] == 1
