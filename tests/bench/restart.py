"""How long a worker with many answers takes to start, with its disk and without.

The changelog of the answers table is filled directly: a first worker writes one answer, and copies of it under other
keys follow, so that nothing here depends on how answers are encoded. Some keys are those of real texts: in the end
these are sent as conversations, and none of them may cost a call.
"""

import asyncio
import hashlib
import time
from collections.abc import Iterator

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.partitioner import murmur2

from streams.terminal import Display
from tests.bench.candidates.work import text_key
from tests.bench.drain import rows_written, work_finished
from tests.bench.environment import Environment, Run
from tests.bench.report import Figure, Report, ReportTable
from tests.bench.workload import Workload, produce
from tests.support.processes import get
from tests.support.waiting import wait_until

_CHANGELOG = "grok-insights-answers-changelog"
_PARTITIONS = 8
_BATCH_BYTES = 512 * 1024
_READY_WITHIN_S = 900
_KNOWN = Workload(records=200, repeats=0, prefix="known")
_FIRST = Workload(records=1, repeats=0, prefix="first", first_text=_KNOWN.records)


def restart(env: Environment, display: Display, answers: int) -> Report:
    """Not `ok` when a text whose answer is in the table was asked about."""
    seconds, megabytes, calls = asyncio.run(_measure(env, display, answers))
    rows: list[dict[str, Figure]] = [{"": how, "seconds until ready": took_s} for how, took_s in seconds.items()]
    title = f"Start with {answers:,} answers ({megabytes:,.0f} MB of keys and values)"
    return Report("restart", [ReportTable(title, rows)], calls == 0)


async def _measure(env: Environment, display: Display, answers: int) -> tuple[dict[str, float], float, int]:
    async with env.run("restart", _PARTITIONS) as run:
        seconds = {"empty table": await _start_and_stop(run, "writer", _FIRST)}
        key, value = await _first_answer(env.bootstrap_servers)
        display.begin("answers", answers)
        async with AIOKafkaProducer(bootstrap_servers=env.bootstrap_servers, enable_idempotence=True) as producer:
            await _fill(producer, display, key.partition(b":")[2], value, answers)
        display.done("answers")
        display.say("starting without the disk, then with it")
        calls_before = (await asyncio.to_thread(run.stats))["calls"]
        seconds["without its disk"] = await _start_and_stop(run, "worker", None)
        seconds["with its disk"] = await _start_and_stop(run, "worker", _KNOWN)
        calls = (await asyncio.to_thread(run.stats))["calls"] - calls_before
        return seconds, answers * (len(key) + len(value)) / 1e6, calls


async def _start_and_stop(run: Run, name: str, conversations: Workload | None) -> float:
    """Seconds from the start of the process until it is ready; then lets it work on the conversations, if any."""
    port = run.service.free_port()
    data_dir = str(run.service.folder / "data" / name)
    began_s = time.monotonic()
    worker = run.service.start(name, "worker", WORKER_METRICS_PORT=str(port), DATA_DIR=data_dir)
    is_ready = lambda: get(f"http://127.0.0.1:{port}/readyz")[0] == 200 or worker.process.poll() is not None  # noqa: E731
    await asyncio.to_thread(
        wait_until, is_ready, timeout_s=_READY_WITHIN_S, what=f"the worker is ready, see {worker.log}"
    )
    seconds = time.monotonic() - began_s
    if conversations is not None:
        rows = await run.count_rows()
        await produce(run.service.settings["KAFKA_BOOTSTRAP_SERVERS"], conversations.conversations(), "text")
        await rows_written(run, rows + conversations.records, worker)
        await work_finished(run, conversations.records)
    if await asyncio.to_thread(worker.stop):
        raise RuntimeError(f"the worker did not stop by itself, see {worker.log}")
    return seconds


async def _first_answer(bootstrap_servers: str) -> tuple[bytes, bytes]:
    """Key and value of the only record in the changelog."""
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(_CHANGELOG, number) for number in range(_PARTITIONS)])
        record = await asyncio.wait_for(consumer.getone(), 30)
        return record.key, record.value


async def _fill(producer: AIOKafkaProducer, display: Display, version: bytes, value: bytes, answers: int) -> None:
    """Answers under the keys of real texts first, then under made-up ones, spread evenly."""
    batches = {number: producer.create_batch() for number in range(_PARTITIONS)}
    sent: list[asyncio.Future[object]] = []
    for number, (key, partition) in enumerate(_keys(answers)):
        batch = batches[partition]
        if batch.append(key=b"%b:%b" % (key, version), value=value, timestamp=None) is None:
            sent.append(await producer.send_batch(batch, _CHANGELOG, partition=partition))
            display.reached("answers", number)
            batch = batches[partition] = producer.create_batch()
            batch.append(key=b"%b:%b" % (key, version), value=value, timestamp=None)
    for partition, batch in batches.items():
        if batch.record_count():
            sent.append(await producer.send_batch(batch, _CHANGELOG, partition=partition))
    await asyncio.gather(*sent)
    display.reached("answers", answers)


def _keys(answers: int) -> Iterator[tuple[bytes, int]]:
    """Text keys with their partitions."""
    for conversation in _KNOWN.conversations():
        key = text_key(conversation.text).encode()
        yield key, (murmur2(key) & 0x7FFFFFFF) % _PARTITIONS
    for number in range(answers - _KNOWN.records):
        yield hashlib.sha256(b"%d" % number).hexdigest().encode(), number % _PARTITIONS
