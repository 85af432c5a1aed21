"""A stop ends in time whatever hangs: workers leave exact offsets, and the gateway sends no 202 too many."""

import asyncio
import json
import signal
import time
import urllib.request
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import aiohttp
import asyncpg
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from agents.text_key import owner_partition, text_key
from streams.dev.local.brokers import Kafka, Tansu
from streams.dev.local.postgres import Postgres
from streams.kafka.offset_reader import OffsetReader
from tests.e2e.rows import count_rows
from tests.support.process_tree import continue_tree, kill_tree, slowed_tree, stop_tree
from tests.support.processes import PARTITIONS, Process, Service
from tests.support.servers import running, skip_unless_kafka
from tests.support.topic_log import records_of
from tests.support.topics import TOPICS
from tests.support.waiting import wait_until

IN_FLIGHT = 304
#: The number of records in each partition before the first one that hangs, and after it.
GOOD = 10
WITHIN_S = 10.0
HANGS = "hanging"
REVOKING = "partitions_revoked"


@pytest.fixture
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tansu | Kafka]:
    """A broker of its own: it is frozen here."""
    if request.param == "kafka":
        skip_unless_kafka()
    with running(Kafka if request.param == "kafka" else Tansu, tmp_path) as server:
        yield server


@pytest.fixture
def service(broker: Tansu | Kafka, postgres_of_its_own: Postgres, tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path, broker.bootstrap_servers, postgres_of_its_own.url, LOG_LEVEL="info") as service:
        service.create_topics()
        service.start_standin("--latency-min-s", "0", "--latency-max-s", "0.05")
        yield service


class Lots:
    """Conversations in their texts' owner partitions: some are answered at once, and some hang."""

    def __init__(self, service: Service, broker: Kafka, url: str) -> None:
        self._service = service
        self._broker = broker
        self._url = url
        self._produced = 0
        #: The end of the unbroken finished run in each partition: at the first hanging record.
        self.finished: dict[TopicPartition, int] = {}
        self._ends = dict.fromkeys(range(PARTITIONS), 0)

    async def produce(self, hanging: int, partitions: Collection[int] = range(PARTITIONS)) -> None:
        """Returns when all but the hanging ones are done, and those are in flight."""
        self._put({"markers": [{"text": HANGS, "kind": "hang"}], "hang_s": 3600})
        words = ["good"] * GOOD + [HANGS] + ["good"] * GOOD + [HANGS] * (hanging // len(partitions) - 1)
        for partition in partitions:
            self.finished[TopicPartition(TOPICS.conversations, partition)] = self._ends[partition] + GOOD
        await self._send(words, partitions)
        await self.rows(self._produced - hanging)
        await asyncio.to_thread(
            wait_until, lambda: self.stats()["hanging"] == hanging, timeout_s=30, what="the calls are in flight"
        )

    async def produce_while_nothing_is_stored(self, count: int) -> None:
        """Returns when their calls are answered."""
        answered = self.stats()["answered"]
        await self._send(["good"] * (count // PARTITIONS), range(PARTITIONS))
        await asyncio.to_thread(
            wait_until,
            lambda: self.stats()["answered"] == answered + count,
            timeout_s=30,
            what="the calls are answered",
        )

    @property
    def ends(self) -> dict[TopicPartition, int]:
        """The end of each partition."""
        return {TopicPartition(TOPICS.conversations, partition): end for partition, end in self._ends.items()}

    async def _send(self, words: Sequence[str], partitions: Collection[int]) -> None:
        """To each of the partitions."""
        async with AIOKafkaProducer(bootstrap_servers=self._broker.bootstrap_servers, acks="all") as producer:
            for partition in partitions:
                for word in words:
                    await producer.send(TOPICS.conversations, self._conversation(word, partition), partition=partition)
                self._ends[partition] += len(words)
            await producer.flush()

    def _conversation(self, word: str, partition: int) -> bytes:
        texts = (f"where is my {word} parcel {self._produced} {n}" for n in range(1_000))
        text = next(
            text for text in texts if owner_partition(text_key("default", text).encode(), PARTITIONS) == partition
        )
        self._produced += 1
        return json.dumps({"id": f"conv-{self._produced}", "text": text}).encode()

    def release(self) -> None:
        """Answers all calls, including those in flight."""
        self._put({})

    def _put(self, plan: object) -> None:
        url = f"http://127.0.0.1:{self._service.standin_port}/control/faults"
        request = urllib.request.Request(url, json.dumps(plan).encode(), method="PUT")
        with urllib.request.urlopen(request, timeout=20):  # noqa: S310  loopback
            pass

    def stats(self) -> dict[str, int]:
        found: dict[str, int] = wait_until(
            lambda: self._service.standin("control/stats"), timeout_s=20, what="stand-in"
        )
        return found

    async def rows(self, count: int) -> None:
        """Returns when there are `count` rows, none of them dead."""
        connection = await asyncpg.connect(self._url)
        try:
            await count_rows(connection, count, timeout_s=60, where="outcome <> 'dead'")
        finally:
            await connection.close()

    async def committed(self) -> dict[TopicPartition, int | None]:
        reader = OffsetReader({"bootstrap_servers": self._broker.bootstrap_servers}, TOPICS)
        await reader.start()
        try:
            return await reader.committed_offsets(self.finished)
        finally:
            await reader.stop()

    async def settle(self, name: str) -> Process:
        """Lets another worker finish everything: one row each, and no second call except those that were cut off."""
        self.release()
        worker = await asyncio.to_thread(self._service.start_worker, name)
        await self.rows(self._produced)
        stats = self.stats()
        print(f"{name}: calls={stats['calls']} distinct={stats['distinct_texts']} cut_off={stats['cut_off']}")
        assert stats["distinct_texts"] == self._produced
        assert stats["calls"] <= stats["distinct_texts"] + stats["cut_off"]
        return worker


@pytest.fixture
def lots(service: Service, broker: Kafka, postgres_of_its_own: Postgres) -> Lots:
    return Lots(service, broker, postgres_of_its_own.url)


async def stopped(worker: Process, what: str) -> None:
    """Asserts that it stops with 0, in time."""
    since_s = time.monotonic()
    worker.process.send_signal(signal.SIGTERM)
    code = await asyncio.to_thread(worker.process.wait, 20)
    took_s = time.monotonic() - since_s
    print(f"{what}: exit code {code} after {took_s:.1f} s")
    assert (code, took_s < WITHIN_S) == (0, True)


async def has_begun_to_stop(worker: Process) -> None:
    """Returns when it has begun to stop."""
    await has_logged(worker, "worker_stopping")


async def has_logged(worker: Process, what: str, count: int = 1) -> None:
    """Returns when the worker's log has the event that often."""
    await asyncio.to_thread(wait_until, lambda: worker.log.read_text().count(what) >= count, timeout_s=10, what=what)


def partitions_of(worker: Process) -> set[int]:
    """Of the conversations, by its latest assignment."""
    [*_, latest] = [event for event in worker.events() if event["event"] == "partitions_ready"]
    return set(latest["partitions"])


@pytest.mark.kafka
@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
async def test_workers_stop_in_time_and_exactly(
    service: Service, lots: Lots, broker: Kafka, postgres_of_its_own: Postgres
) -> None:
    """One has Grok hanging and Postgres gone, 152 records in flight for each; one has 304 calls that hang and Kafka
    frozen; one has as many and Kafka slow; the calls of one end during the stop; and one gets a second signal, from an
    impatient operator."""
    worker = await asyncio.to_thread(service.start_worker, "first")
    await lots.produce(hanging=IN_FLIGHT // 2)
    assert postgres_of_its_own.pid is not None
    await asyncio.to_thread(kill_tree, postgres_of_its_own.pid)
    await lots.produce_while_nothing_is_stored(IN_FLIGHT // 2)
    await stopped(worker, "Grok hangs, Postgres is gone")
    assert await lots.committed() == lots.finished
    await asyncio.to_thread(postgres_of_its_own.launch)
    await asyncio.to_thread(postgres_of_its_own.await_ready)

    worker = await lots.settle("second")
    await lots.produce(hanging=IN_FLIGHT)
    assert broker.pid is not None
    await asyncio.to_thread(stop_tree, broker.pid)
    try:
        await stopped(worker, "Kafka is frozen")
    finally:
        await asyncio.to_thread(continue_tree, broker.pid)
    assert await lots.committed() == lots.finished

    worker = await lots.settle("third")
    await lots.produce(hanging=IN_FLIGHT)
    with slowed_tree(broker.pid):
        await stopped(worker, "Kafka is slow")
    assert await lots.committed() == lots.finished

    worker = await lots.settle("fourth")
    await lots.produce(hanging=IN_FLIGHT)
    stopping = asyncio.create_task(stopped(worker, "calls end during the stop"))
    await has_begun_to_stop(worker)
    await asyncio.to_thread(lots.release)
    await stopping
    assert await lots.committed() == lots.ends

    worker = await lots.settle("fifth")
    await lots.produce(hanging=IN_FLIGHT)
    worker.process.send_signal(signal.SIGTERM)
    await has_begun_to_stop(worker)
    worker.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.process.wait, 5) == -signal.SIGTERM


@pytest.mark.kafka
@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
async def test_partitions_move_only_when_the_work_of_a_stopping_worker_has_ended(service: Service, lots: Lots) -> None:
    """Another worker leaves meanwhile. Work that ends within the stop is committed, and is not paid for again."""
    stays = await asyncio.to_thread(service.start_worker, "stays")
    leaves = await asyncio.to_thread(service.start_worker, "leaves")
    await has_logged(stays, "partitions_ready", 2)
    await lots.produce(IN_FLIGHT, partitions_of(stays))
    moves = stays.log.read_text().count(REVOKING)
    stopping = asyncio.create_task(stopped(stays, "the group rebalances meanwhile"))
    await has_begun_to_stop(stays)
    assert await asyncio.to_thread(leaves.stop) == 0
    await has_logged(stays, REVOKING, moves + 1)
    await asyncio.to_thread(lots.release)
    await stopping
    committed = await lots.committed()
    assert {at: committed[at] for at in lots.finished} == {at: lots.ends[at] for at in lots.finished}
    await lots.settle("next")
    stats = lots.stats()
    assert stats["calls"] == stats["distinct_texts"]


@pytest.mark.slow
@pytest.mark.parametrize("broker", ["tansu"], indirect=True)
async def test_a_gateway_before_a_frozen_broker_stops_in_time(service: Service, broker: Tansu) -> None:
    """Conversations in flight are accepted or not; those that got a 202 are in the topic."""
    await asyncio.to_thread(service.start_gateway)
    assert broker.pid is not None
    url = f"{service.gateway_url}/api/v1/conversations"
    accepted: list[int] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def post(number: int) -> None:
            async with session.post(url, json={"id": f"conv-{number}", "text": "where is my parcel"}) as response:
                if response.status == 202:
                    accepted.append(number)

        await asyncio.gather(*map(post, range(20)))
        await asyncio.to_thread(stop_tree, broker.pid)
        try:
            in_flight = [asyncio.ensure_future(post(number)) for number in range(20, 20 + IN_FLIGHT)]
            for _ in range(3):  # what came before is read by the time that these are answered
                async with session.get(f"{service.gateway_url}/livez") as response:
                    assert response.status == 200
            await stopped(service.processes[-1], "the gateway, its broker frozen")
        finally:
            await asyncio.to_thread(continue_tree, broker.pid)
        await asyncio.gather(*in_flight, return_exceptions=True)
    stored = await records_of(broker.bootstrap_servers, TOPICS.conversations)
    print(f"{len(accepted)} accepted, {len(stored)} stored")
    assert set(range(20)) <= set(accepted)
    assert {f"conv-{number}" for number in accepted} <= {json.loads(record.value)["id"] for record in stored}
