"""Records in the topic become rows, events and dead letters, on real brokers, a real Postgres and over real HTTP."""

import asyncio
import json
import random
from datetime import UTC, datetime
from functools import partial

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import ConsumerRecord

from streams.dev.local.brokers import Kafka, Tansu
from tests.e2e.producer import produce, texts_with_repeats
from tests.e2e.rows import count_rows
from tests.support.processes import Service, get
from tests.support.raw_headers import RawName, raw_batch
from tests.support.waiting import eventually

#: Of calls in flight by default, and of answers that are not in the changelog yet: a killed worker loses no more.
MAX_LOST = 2 * 512


async def until_spent(rows: asyncpg.Connection, ticks: int) -> None:
    """Calls without an answer are stored beside the rows, and may come after them."""

    async def is_spent() -> bool:
        return bool(await rows.fetchval("SELECT sum(cost_usd_ticks) FROM calls") == ticks)

    await eventually(is_spent, timeout_s=10, what=f"the table `calls` adds up to {ticks} ticks")


async def read_topic(broker: Tansu | Kafka, topic: str, count: int) -> list[ConsumerRecord]:
    """Returns the first `count` records of a topic."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=broker.bootstrap_servers, auto_offset_reset="earliest")
    async with consumer, asyncio.timeout(30):
        return [await consumer.getone() for _ in range(count)]


async def test_every_kind_of_record_ends_as_exactly_one_outcome(
    service: Service, broker: Tansu | Kafka, rows: asyncpg.Connection
) -> None:
    """Good, repeated, low-value and broken records in one topic: each gets its outcome, and none blocks another."""
    service.start_standin("--latency-min-s", "0", "--latency-max-s", "0.05")
    worker = service.start_worker("worker-1")
    good = json.dumps({"id": "good", "text": "Charged twice, please refund"}).encode()
    records = [
        (b"good", good),
        (b"again", good.replace(b'"good"', b'"again"')),
        (b"hi", b'{"id":"hi","text":"Hello!"}'),
        (b"broken", b"not json \xff"),
        (None, b'{"id":"late","text":"Where is my order, it should be here","colour":1}'),
        (b"dead", None),
    ]
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
        for key, value in records:
            await producer.send_and_wait(service.topics.conversations, value, key=key)
    await count_rows(rows, 4, timeout_s=60)
    dead_letters = await read_topic(broker, service.topics.dead_letters, 3)
    assert {dead_letter.value for dead_letter in dead_letters} == {b"not json \xff", records[4][1], None}
    assert {dict(dead_letter.headers)["dlq.reason"] for dead_letter in dead_letters} == {b"undecodable", b"invalid"}
    outcomes = dict(await rows.fetch("SELECT conversation_id, outcome FROM insights"))
    assert outcomes.pop("late") == "dead"
    assert (outcomes["hi"], {outcomes["good"], outcomes["again"]}) == ("filtered", {"analysed", "cached"})
    events = await read_topic(broker, service.topics.insights, 3)
    assert {event.key.decode(): json.loads(event.value)["outcome"] for event in events} == outcomes
    assert service.standin("control/stats")["calls"] == 1
    metrics = get(f"{worker.url}/metrics")[1].decode()
    assert 'conversations_total{outcome="dead"} 3.0' in metrics
    assert worker.stop() == 0


async def test_a_record_that_fails_its_check_is_found_by_its_id(
    service: Service, broker: Tansu | Kafka, rows: asyncpg.Connection
) -> None:
    """In the topic of dead letters and in the table, with a detail in plain words. It takes no row from a valid
    record, not even from one that took place before."""
    ask = "where is my order, it should be here"
    good = json.dumps({"id": "kept", "text": ask, "occurred_at": "2026-01-31T12:00:00Z"}).encode()
    broken = {
        "type": ({"text": 5}, "`text` must be a string, not a number (invalid_value)"),
        "role": (
            {"messages": [{"role": "", "text": ask}]},
            "`messages[0].role` must not be empty (invalid_value)",
        ),
        "metadata": (
            {"text": ask, "metadata": {"a": "x" * 20_000}},
            "`metadata` must have at most 16384 bytes (too_long)",
        ),
        "large": ({"text": "x" * 1_000_000}, "the conversation is larger than 1000000 bytes (too_large)"),
        "kept": ({"text": 5}, "`text` must be a string, not a number (invalid_value)"),
        "mended": ({"text": 5}, "`text` must be a string, not a number (invalid_value)"),
    }
    worker = service.start_worker("worker-1")
    options = {"bootstrap_servers": broker.bootstrap_servers, "compression_type": "gzip", "max_request_size": 2**21}
    async with AIOKafkaProducer(**options) as producer:
        send = partial(producer.send_and_wait, service.topics.conversations)
        await send(good)
        for id_, (fields, _) in broken.items():
            await send(json.dumps({"id": id_, **fields}).encode(), key=b"foreign")
        await send(json.dumps({"id": ["no id"], "text": ask}).encode(), key=b"foreign")
        await count_rows(rows, 6, timeout_s=60)
        await send(good.replace(b"kept", b"mended"))
    await count_rows(rows, 1, timeout_s=60, where="conversation_id = 'mended' AND outcome <> 'dead'")
    dead_letters = await read_topic(broker, service.topics.dead_letters, 7)
    assert worker.stop() == 0
    found = {dead_letter.key.decode(): dict(dead_letter.headers) for dead_letter in dead_letters}
    assert {id_: headers.get("dlq.conversation_id") for id_, headers in found.items()} == {
        **{id_: id_.encode() for id_ in broken},
        "foreign": None,
    }
    assert {id_: found[id_]["dlq.detail"].decode() for id_ in broken} == {
        id_: detail for id_, (_, detail) in broken.items()
    }
    stored = {row["conversation_id"]: row for row in await rows.fetch("SELECT * FROM insights")}
    assert {id_: stored[id_]["reason"] for id_ in stored} == {
        **dict.fromkeys(("type", "role", "metadata"), "invalid"),
        "large": "too_large",
        **dict.fromkeys(("kept", "mended")),
    }
    assert {stored[id_]["outcome"] for id_ in ("kept", "mended")} == {"analysed", "cached"}


async def test_poison_records_stop_no_others(service: Service, broker: Tansu | Kafka, rows: asyncpg.Connection) -> None:
    """They have an impossible time stamp, a header name that is not UTF-8, or a size beyond any dead letter after
    decompression: all others continue."""
    worker = service.start_worker("worker-1")
    # Each broker refuses the other's end of time.
    stamp = 10**17 - 1 if isinstance(broker, Tansu) else 1 - 10**17
    options = {"bootstrap_servers": broker.bootstrap_servers, "compression_type": "gzip", "max_request_size": 2**26}
    async with AIOKafkaProducer(**options) as producer:
        send = partial(producer.send_and_wait, service.topics.conversations, partition=0)
        await send(b'{"id":"a","text":"where is my order"}')
        await send(b"x" * 30_000_000)
        await send(b'{"id":"b","text":"I want a refund"}', timestamp_ms=stamp)
        odd = raw_batch()
        headers = [(RawName(b"\xff"), b"value")]
        odd.append(timestamp=None, key=b"odd", value=b'{"id":"odd","text":"where is my invoice"}', headers=headers)
        await (await producer.send_batch(odd, service.topics.conversations, partition=0))
        await send(b'{"id":"c","text":"where is my refund"}')
    await count_rows(rows, 4, timeout_s=60)
    [dead_letter] = await read_topic(broker, service.topics.dead_letters, 1)
    assert dict(dead_letter.headers)["dlq.reason"] == b"too_large"
    assert len(dead_letter.value) == 30_000_000
    assert worker.stop() == 0


async def test_what_can_be_repaired_is_analysed(
    service: Service, broker: Tansu | Kafka, rows: asyncpg.Connection
) -> None:
    """What real producers send: whole texts of a day, cut emoji, NUL, a BOM, integer ids, times in the future. Row and
    event say what was changed, and hold the producer's metadata."""
    worker = service.start_worker("worker-1")
    ask = "where is my order, it should be here "
    records = [
        b'{"id":"emoji","text":"' + ask.encode() + b'\\ud83d"}',
        b'{"id":"nul","text":"' + ask.encode() + b'\\u0000","metadata":{"a\\u0000":"\\ud83d"}}\0',
        b"\xef\xbb\xbf" + json.dumps({"id": "bom", "text": ask}).encode(),
        json.dumps({"id": 7, "text": ask, "metadata": {"order": {"lines": [1, None]}}}).encode(),
        json.dumps({"id": "long", "text": "begin " + ask * 18_000 + "end"}).encode(),
        json.dumps({"id": "future", "text": ask, "occurred_at": "2999-01-01T00:00:00Z"}).encode(),
        json.dumps(
            {"id": "messages", "messages": [{"role": "user", "text": ask, "at": "2026-01-31T12:00:00Z"}]}
        ).encode(),
    ]
    options = {"bootstrap_servers": broker.bootstrap_servers, "max_request_size": 2**20}
    async with AIOKafkaProducer(**options) as producer:
        for value in records:
            await producer.send_and_wait(service.topics.conversations, value)
    await count_rows(rows, len(records), timeout_s=60)
    found = {row["conversation_id"]: row for row in await rows.fetch("SELECT * FROM insights")}
    assert {id_: row["repairs"] for id_, row in found.items()} == {
        "emoji": ["characters_replaced"],
        "nul": ["characters_replaced"],
        "bom": ["characters_replaced"],
        "7": None,
        "long": ["text_cut"],
        "future": ["occurred_at_clamped"],
        "messages": None,
    }
    assert {row["outcome"] for row in found.values()} == {"analysed", "cached"}
    assert json.loads(found["7"]["metadata"]) == {"order": {"lines": [1, None]}}
    assert json.loads(found["nul"]["metadata"]) == {"a\ufffd": "\ufffd"}
    assert found["future"]["occurred_at"] == found["future"]["received_at"]
    assert found["messages"]["occurred_at"] == datetime(2026, 1, 31, 12, tzinfo=UTC)
    events = await read_topic(broker, service.topics.insights, len(records))
    results = {event.key.decode(): json.loads(event.value) for event in events}
    assert {id_: result.get("repairs") for id_, result in results.items()} == {
        id_: row["repairs"] for id_, row in found.items()
    }
    assert results["7"]["metadata"] == {"order": {"lines": [1, None]}}
    metrics = get(f"{worker.url}/metrics")[1].decode()
    assert 'conversations_repaired_total{repair="characters_replaced"} 3.0' in metrics
    assert worker.stop() == 0


async def test_costs_add_up_to_the_bill(service: Service, broker: Tansu | Kafka, rows: asyncpg.Connection) -> None:
    """Bad answers and refusals are paid for too, ids are posted again with the same text and with another one, and a
    worker restarts: the table `calls` equals what the provider billed, and never shrinks."""
    row_of_a = "SELECT * FROM insights WHERE conversation_id = 'a'"
    bill = "SELECT coalesce(sum(cost_usd_ticks), 0)::bigint FROM calls"
    service.start_standin("--latency-min-s", "0", "--latency-max-s", "0.05")
    markers = [{"text": "#bad", "kind": "bad_schema"}, {"text": "#refused", "kind": "refusal"}]
    service.plan_faults({"markers": markers})
    worker = service.start_worker("worker-1")
    texts = {"a": "where is my parcel", "bad": "my parcel is late #bad", "no": "my parcel is wet #refused"}
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:

        async def send(id_: str, text: str) -> None:
            value = json.dumps({"id": id_, "text": text}).encode()
            await producer.send_and_wait(service.topics.conversations, value)

        for id_, text in texts.items():
            await send(id_, text)
        await count_rows(rows, 3, timeout_s=60)
        before = await rows.fetchrow(row_of_a)
        spent = service.standin("control/stats")["billed_usd_ticks"]
        await until_spent(rows, spent)
        await send("a", texts["a"])
        await send("b", texts["a"])
        await count_rows(rows, 4, timeout_s=60)
        after = await rows.fetchrow(row_of_a)
        assert {**after, "occurred_at": None} == {**before, "occurred_at": None}
        assert (before["outcome"], await rows.fetchval(bill)) == ("analysed", spent)
        assert worker.stop() == 0
        service.start_worker("worker-2")
        await send("a", "where is my other parcel")
        await count_rows(rows, 1, timeout_s=60, where=f"conversation_id = 'a' AND text_key <> '{before['text_key']}'")
    billed = service.standin("control/stats")["billed_usd_ticks"]
    assert billed > spent
    await until_spent(rows, billed)
    outcomes = dict(await rows.fetch("SELECT outcome, count(*) FROM calls GROUP BY outcome"))
    assert outcomes == {"answered": 2, "bad_answer": 2, "refused": 1}
    costs = await rows.fetch("SELECT cost_usd_ticks FROM calls WHERE conversation_id = 'a' AND cost_usd_ticks > 0")
    assert len(costs) == 2


async def test_a_restarted_worker_continues_where_it_stopped(
    service: Service, broker: Tansu | Kafka, rows: asyncpg.Connection
) -> None:
    """Offsets are committed at the stop, and the answers table is restored: no text is asked about twice."""
    service.start_standin("--latency-min-s", "0", "--latency-max-s", "0.05")
    worker = service.start_worker("worker-1")
    texts = texts_with_repeats(200, 0.3, seed=1)
    await produce(service, texts)
    await count_rows(rows, 200, timeout_s=60)
    assert worker.stop() == 0
    await produce(service, texts, first=200)
    service.start_worker("worker-2")  # another data folder: its table comes from the changelog alone
    await count_rows(rows, 400, timeout_s=60)
    assert service.standin("control/stats")["calls"] == len(set(texts))


@pytest.mark.kafka
@pytest.mark.timeout(300)
@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
async def test_two_workers_one_killed_half_way_lose_and_double_nothing(
    service: Service, broker: Kafka, rows: asyncpg.Connection
) -> None:
    """20,000 conversations, 30 % repeats, foreign keys: one row each, and no text is asked about twice, except for the
    calls in flight at the kill."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    service.start_standin()
    first, _ = await asyncio.gather(*(asyncio.to_thread(service.start_worker, f"worker-{n}") for n in (1, 2)))
    texts = texts_with_repeats(20_000, 0.3, seed)
    await produce(service, texts)
    await count_rows(rows, 8_000, timeout_s=120)
    assert service.standin("control/stats")["repeated_texts"] == 0
    first.kill()
    await asyncio.to_thread(service.start_worker, "worker-1")
    await count_rows(rows, 20_000, timeout_s=180)
    assert await rows.fetchval("SELECT count(*) FROM insights") == 20_000
    assert await rows.fetchval("SELECT count(*) FROM insights WHERE outcome NOT IN ('analysed', 'cached')") == 0
    stats = service.standin("control/stats")
    print(f"stand-in: {stats}")
    assert stats["distinct_texts"] == len(set(texts))
    assert stats["calls"] - stats["distinct_texts"] <= MAX_LOST
