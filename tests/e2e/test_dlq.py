"""10,000 dead letters replayed into a working service, with a kill, a worker that joins and one that leaves."""

import asyncio
import json
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from schemas.dead_letter import DeadLetter, DeadLetterReason
from schemas.kafka import Header, Origin, Topics
from streams.kafka.offset_reader import OffsetReader
from streams.operations.dlq.dead_letter import REPLAY_COUNT, REPLAYED_DEAD_LETTER
from streams.operations.dlq.ledger import ReplayLedger
from streams.operations.dlq.replay import MAX_IN_FLIGHT, Pacer, ReplayOptions, ReplayResult, replay_dead_letters
from streams.operations.dlq.selection import Filters, Selection, dead_letter_bounds
from tests.e2e.producer import texts_with_repeats
from tests.support.factories import NOON
from tests.support.processes import Process, Service
from tests.support.topic_log import records_of
from tests.support.topics import TOPICS
from tests.support.waiting import eventually

COUNT = 10_000
#: Slow enough that a worker joins long before the end.
RATE = "100"
SNAPSHOT = "SELECT * FROM insights ORDER BY conversation_id"
INSERT_DEAD = """
INSERT INTO insights (tenant, conversation_id, outcome, reason, occurred_at, received_at, analysed_at,
                      origin_topic, origin_partition, origin_offset)
VALUES ('default', $1, 'dead', $2, $4, $4, $4, 'conversations', 0, $3)
"""
RESOLVED = "SELECT count(*) FROM insights WHERE outcome IN ('analysed', 'cached')"


def dead_letter(number: int, text: str) -> DeadLetter:
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


async def let_die(service: Service, rows: asyncpg.Connection, texts: list[str]) -> None:
    """Writes what a worker leaves of conversations that died: dead letters and rows."""
    dead_letters = {f"conv-{number}": dead_letter(number, text) for number, text in enumerate(texts)}
    await send_dead_letters(service, dead_letters)
    ended = [(id, dead_letter.reason, dead_letter.origin.offset, NOON) for id, dead_letter in dead_letters.items()]
    await rows.executemany(INSERT_DEAD, ended)


async def send_dead_letters(service: Service, dead_letters: dict[str, DeadLetter]) -> None:
    """Sends them by conversation id."""
    async with AIOKafkaProducer(bootstrap_servers=service.bootstrap_servers, acks="all", linger_ms=20) as producer:
        for id, dead_letter in dead_letters.items():
            await producer.send(
                service.topics.dead_letters, dead_letter.value, key=id.encode(), headers=dead_letter.headers_out()
            )
        await producer.flush()


async def nothing_is_left_to_read(reader: OffsetReader, topics: Topics) -> bool:
    """Returns whether the group has finished all records of its topics."""
    counts = await reader.partition_counts(topics.inputs)
    partitions = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
    return all(position.start == position.end for position in (await reader.positions(partitions)).values())


async def settled(service: Service) -> None:
    reader = OffsetReader({"bootstrap_servers": service.bootstrap_servers}, service.topics)
    await reader.start()
    try:
        what = "all records are finished"
        await eventually(lambda: nothing_is_left_to_read(reader, service.topics), timeout_s=120, what=what)
    finally:
        await reader.stop()


async def marked(service: Service) -> int:
    """Returns the number of marks; one record of each replay is not a mark and has no value."""
    ledger = await records_of(service.bootstrap_servers, service.topics.replay_ledger)
    return sum(record.value is not None for record in ledger)


def report_of(replay: Process) -> dict[str, Any]:
    """The last line of a replay's output, which is its report."""
    assert replay.process.wait(120) == 0, replay.log.read_text()
    report: dict[str, Any] = json.loads(replay.log.read_text().splitlines()[-1])
    return report


def start_replay(service: Service, name: str, *options: str) -> Process:
    return service.start(name, "dlq", "replay", "--all", "--json", *options)


async def replay_through_a_kill(service: Service, first_worker: Process) -> None:
    """The first replay is killed after a worker joined; the second one continues while a worker leaves."""
    killed = start_replay(service, "killed", "--rate", RATE)
    await asyncio.to_thread(service.start_worker, "worker-2")
    assert killed.process.poll() is None, killed.log.read_text()
    killed.kill()
    before = await marked(service)
    assert 0 < before < COUNT
    second = start_replay(service, "second")
    assert await asyncio.to_thread(first_worker.stop) == 0
    report = await asyncio.to_thread(report_of, second)
    assert (report["skipped"]["replayed_already"], report["sent"]) == (before, COUNT - before)
    await settled(service)


async def replay_as_if_nothing_were_marked(service: Service) -> int:
    """Returns how many were sent: the worst case of two concurrent replays or a lost ledger."""
    options = {"bootstrap_servers": service.bootstrap_servers}
    everything, done = Selection(Filters(), ReplayLedger()), ReplayResult()
    orders = ReplayOptions(Pacer(None), lambda _: None)
    bounds = await dead_letter_bounds(options, service.topics)
    await replay_dead_letters(options, service.topics, bounds, everything, orders, done, asyncio.Event())
    await settled(service)
    return done.sent.total()


@pytest.mark.kafka
@pytest.mark.timeout(300)
@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
async def test_ten_thousand_dead_letters_are_resolved_once(service: Service, rows: asyncpg.Connection) -> None:
    """Every row is resolved and no dead letter is left out; replaying all of it once more changes no row and makes no
    call."""
    service.start_standin("--latency-min-s", "0", "--latency-max-s", "0.02")
    texts = texts_with_repeats(COUNT, 0.3, seed=4)
    _, worker = await asyncio.gather(let_die(service, rows, texts), asyncio.to_thread(service.start_worker, "worker-1"))
    assert await rows.fetchval("SELECT count(*) FROM insights WHERE outcome = 'dead'") == COUNT

    await replay_through_a_kill(service, worker)
    assert await rows.fetchval(RESOLVED) == await rows.fetchval("SELECT count(*) FROM insights") == COUNT
    stats = service.standin("control/stats")
    assert stats["distinct_texts"] == len(set(texts))
    assert stats["calls"] <= stats["distinct_texts"] + stats["cut_off"]
    sent = await records_of(service.bootstrap_servers, service.topics.conversations)
    names = [dict(record.headers)[REPLAYED_DEAD_LETTER] for record in sent]
    assert len(set(names)) == COUNT
    assert len(names) - COUNT <= MAX_IN_FLIGHT

    resolved = await rows.fetch(SNAPSHOT)
    again = await asyncio.to_thread(report_of, start_replay(service, "again"))
    assert (again["sent"], again["skipped"]["replayed_already"]) == (0, COUNT)
    assert await replay_as_if_nothing_were_marked(service) == COUNT
    assert await rows.fetch(SNAPSHOT) == resolved
    assert service.standin("control/stats")["calls"] == stats["calls"]


@pytest.mark.parametrize("broker", ["tansu"], indirect=True)
async def test_a_record_that_dies_again_is_a_new_dead_letter(service: Service) -> None:
    """It has its newest reason and the ID of the old one, which counts as replayed."""
    await send_dead_letters(service, {"conv-0": dead_letter(0, "")})
    await asyncio.to_thread(service.start_worker, "worker")
    assert report_of(start_replay(service, "replay"))["reasons"] == {"refused": 1}
    await settled(service)
    old, new = await records_of(service.bootstrap_servers, service.topics.dead_letters)
    headers = dict(new.headers)
    assert headers["dlq.reason"] == b"invalid"
    assert headers[REPLAYED_DEAD_LETTER].decode() == f"{old.partition}:{old.offset}"
    assert headers[REPLAY_COUNT] == b"1"
    assert report_of(start_replay(service, "dry", "--dry-run"))["to_send"] == 1
