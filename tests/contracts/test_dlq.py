"""`grok-insights dlq` on real brokers, run as a command."""

import asyncio
import json
import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from schemas.dead_letter import DeadLetter, DeadLetterReason
from schemas.kafka import Header, Origin
from streams.dev.local.brokers import Kafka, Tansu
from streams.dev.local.ports import free_port
from streams.kafka.admin import create_topics
from streams.kafka.producer import ConfirmedProducer
from streams.kafka.scan import bounds
from streams.operations.dlq.dead_letter import REPLAY_COUNT, REPLAYED_DEAD_LETTER, read_dead_letter
from streams.operations.dlq.ledger import ReplayLedger
from streams.sinks.dead_letters import TRUNCATED
from tests.support.factories import NOON
from tests.support.topic_log import records_of
from tests.support.topics import TOPICS

ROOT = Path(__file__).parents[2]
SECRET = "my card number is 4111"


def dead_letter(number: int, **fields: Any) -> DeadLetter:
    values = {
        "key": b"key-%d" % number,
        "value": json.dumps({"id": f"c-{number}", "text": SECRET}).encode(),
        "headers": [("tenant", b"acme"), (Header.TIME, b"2026-01-01T00:00:00+00:00")],
        "reason": DeadLetterReason.REFUSED if number % 2 else DeadLetterReason.BAD_ANSWER,
        "detail": "why",
        "origin": Origin(TOPICS.conversations, 0, number),
        "received_at": datetime(2026, 1, 1, tzinfo=UTC),
        "at": NOON + timedelta(minutes=number),
    }
    return DeadLetter(**{**values, **fields})


class Service:
    """A broker with topics, dead letters written as by a worker, and the command that reads them."""

    def __init__(self, bootstrap_servers: str, producer: ConfirmedProducer) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.options = {"bootstrap_servers": bootstrap_servers}
        self.producer = producer

    async def write(self, *dead_letters: DeadLetter) -> None:
        for one in dead_letters:
            key = json.loads(one.value or b"")["id"].encode()
            await self.producer.send(TOPICS.dead_letters, key=key, value=one.value, headers=one.headers_out())

    async def dlq(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return await asyncio.to_thread(dlq, self.bootstrap_servers, *arguments)

    async def listed(self, *arguments: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Returns the dead letters and the summary."""
        done = await self.dlq("list", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        *dead_letters, summary = [json.loads(line) for line in done.stdout.splitlines()]
        return dead_letters, summary["summary"]

    async def replay(self, *arguments: str) -> dict[str, Any]:
        done = await self.dlq("replay", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return report


def dlq(bootstrap_servers: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "streams", "dlq", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def start_dlq(bootstrap_servers: str, *arguments: str) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "streams", "dlq", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def dlq_on_terminal(bootstrap_servers: str, answer: bytes, *arguments: str) -> tuple[int, bytes]:
    """Returns the exit code and what the terminal showed."""
    environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "streams", "dlq", *arguments]
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        os.write(ours, answer)
        shown = b""
        with suppress(OSError):  # Linux reports so that the other side is closed
            while chunk := os.read(ours, 65_536):
                shown += chunk
        return process.wait(30), shown
    finally:
        os.close(ours)


@pytest.fixture
async def service(broker: Tansu | Kafka) -> AsyncIterator[Service]:
    options = {"bootstrap_servers": broker.bootstrap_servers}
    await create_topics(options, TOPICS, 4, 1)
    producer = ConfirmedProducer(options, compression="gzip")
    await producer.start()
    yield Service(broker.bootstrap_servers, producer)
    await producer.stop()


async def test_dead_letters_are_listed_newest_first_and_without_their_text(service: Service) -> None:
    """With filters, a limit, and the counts of all that match; `show --value` prints the text."""
    assert await service.listed() == ([], {"unresolved": 0, "reasons": {}, "replayed_already": 0, "shown": 0})
    await service.write(*(dead_letter(number) for number in range(6)))
    dead_letters, summary = await service.listed("--limit", "4")
    assert [one["id"] for one in dead_letters] == ["c-5", "c-4", "c-3", "c-2"]
    assert summary == {"unresolved": 6, "reasons": {"refused": 3, "bad_answer": 3}, "replayed_already": 0, "shown": 4}
    refused, _ = await service.listed(
        "--reason", "refused", "--since", "2026-01-31T12:02:00", "--conversation", "c-5", "--conversation", "c-1"
    )
    assert [one["id"] for one in refused] == ["c-5"]
    name = refused[0]["dead_letter"]
    assert (await service.listed("--id", name))[0] == refused
    lines, facts, value, gone = await asyncio.gather(
        service.dlq("list"),
        service.dlq("show", name),
        service.dlq("show", name, "--value"),
        service.dlq("show", "0:99999"),
    )
    assert [len(line.split("\t")) for line in lines.stdout.splitlines()] == [9] * 6
    assert SECRET not in lines.stdout + lines.stderr + facts.stdout + facts.stderr + json.dumps(dead_letters)
    assert "tenant: acme" in facts.stdout
    assert value.stdout == dead_letter(5).value.decode()  # type: ignore[union-attr]
    assert (gone.returncode, gone.stderr.splitlines()[0]) == (1, "error: there is no dead letter 0:99999")


async def test_a_dead_letter_is_found_by_its_conversation_and_not_by_its_key(service: Service) -> None:
    """By the id in its header, or else in its value; without one it has none."""
    named = dead_letter(0, value=b'{"id":"c-0","te', conversation_id="c-0")
    unnamed, without_id = dead_letter(1, value=b'{"id":1,"text":5}'), dead_letter(2, value=b'{"text":"no id"}')
    for one in (named, unnamed, without_id):
        await service.producer.send(TOPICS.dead_letters, key=one.key, value=one.value, headers=one.headers_out())
    listed = {one["id"]: one for one in (await service.listed())[0]}
    assert {id_: one["key"] for id_, one in listed.items()} == {"c-0": "key-0", "1": "key-1", None: "key-2"}
    for id_, key in (("c-0", "key-0"), ("1", "key-1")):
        assert (await service.listed("--conversation", id_))[0] == [listed[id_]]
        by_key = await service.dlq("list", "--conversation", key)
        assert (by_key.returncode, by_key.stdout) == (1, "")
    shown = (await service.dlq("show", listed["1"]["dead_letter"])).stdout
    assert [line.split()[1:] for line in shown.splitlines() if line.startswith(("id:", "key:"))] == [["1"], ["key-1"]]
    document = json.loads((await service.dlq("show", listed["1"]["dead_letter"], "--json")).stdout)
    assert (document["id"], document["key"]) == ("1", "key-1")


async def test_a_replay_sends_the_original_record_once(service: Service) -> None:
    """It has key, value, headers and the dead letter's ID; a second replay sends nothing, and the list is empty."""
    await service.write(*(dead_letter(number) for number in range(4)), dead_letter(4, key=None))
    assert (await service.replay("--all", "--dry-run"))["to_send"] == 5
    assert {begin - end for begin, end in (await bounds(service.options, TOPICS, [TOPICS.conversations])).values()} == {
        0
    }
    assert (await service.replay("--reason", "refused"))["reasons"] == {"refused": 2}
    dead_letters = await records_of(service.bootstrap_servers, TOPICS.dead_letters)
    assert await service.replay("--all") == {
        "dry_run": False,
        "to_send": 3,
        "sent": 3,
        "sent_without_mark": 0,
        "skipped": {"replayed_already": 2, "too_often": 0, "filtered": 0},
        "left": 0,
        "failed": 0,
        "reasons": {"bad_answer": 3},
        "failed_first": [],
        "stopped": False,
    }
    assert (await service.replay("--all"))["sent"] == 0
    sent = {record.value: record for record in await records_of(service.bootstrap_servers, TOPICS.conversations)}
    assert len(sent) == len(await records_of(service.bootstrap_servers, TOPICS.conversations)) == 5
    for one in dead_letters:
        record = sent[one.value]
        name = f"{one.partition}:{one.offset}".encode()
        assert record.key == dict(one.headers).get("dlq.key")
        assert list(record.headers) == [*dead_letter(0).headers, (REPLAYED_DEAD_LETTER, name), (REPLAY_COUNT, b"1")]
    assert (await service.listed())[1]["replayed_already"] == 5
    assert {one["replayed_at"] is None for one in (await service.listed("--replayed"))[0]} == {False}


async def test_concurrent_replays_send_every_record(service: Service) -> None:
    """At least once, at most once by each replay, and every one is marked."""
    await service.write(*(dead_letter(number) for number in range(200)))
    reports = await asyncio.gather(service.replay("--all", "--rate", "200"), service.replay("--all", "--rate", "200"))
    sent = await records_of(service.bootstrap_servers, TOPICS.conversations)
    assert len({dict(record.headers)[REPLAYED_DEAD_LETTER] for record in sent}) == 200
    assert len(sent) == sum(report["sent"] for report in reports) <= 400
    ledger = ReplayLedger()
    for record in await records_of(service.bootstrap_servers, TOPICS.replay_ledger):
        ledger.add(record.key, record.value)
    dead_letters = await records_of(service.bootstrap_servers, TOPICS.dead_letters)
    assert all(ledger.mark_of(read_dead_letter(one)) for one in dead_letters)


@pytest.mark.slow
async def test_a_truncated_one_is_replayed_from_its_original_or_not_at_all(service: Service) -> None:
    """A part of a conversation is never sent, nor a record that another program wrote to the topic."""
    whole = json.dumps({"id": "c-1", "text": "x" * 1000}).encode()
    async with AIOKafkaProducer(bootstrap_servers=service.bootstrap_servers) as producer:
        original = await producer.send_and_wait(TOPICS.conversations, whole, key=b"key-1", partition=2)
        await producer.send_and_wait(TOPICS.dead_letters, b"foreign", key=b"\x1b[2J", partition=3)
    there = dead_letter(1, value=whole[:100], origin=Origin(TOPICS.conversations, 2, original.offset))
    gone = dead_letter(2, value=whole[:100], origin=Origin(TOPICS.conversations, 1, 77))
    for one in (there, gone):
        headers = [*one.headers_out(), (TRUNCATED, b"%d" % len(whole))]
        await service.producer.send(TOPICS.dead_letters, key=one.key, value=one.value, headers=headers, partition=0)
    done = await service.dlq("replay", "--all")
    assert done.returncode == 1, done.stderr
    assert "error: 2 dead letters cannot be replayed" in done.stderr
    assert "0:1: the dead letter holds 100 of" in done.stderr
    assert "3:0: not written by grok-insights" in done.stderr
    sent = await records_of(service.bootstrap_servers, TOPICS.conversations)
    assert [record.value for record in sent if REPLAYED_DEAD_LETTER in dict(record.headers)] == [whole]
    assert {one["dead_letter"] for one in (await service.listed())[0]} == {"0:1", "3:0"}
    assert "\x1b" not in (await service.dlq("list")).stdout


@pytest.mark.parametrize("broker", ["tansu"], indirect=True)
@pytest.mark.parametrize(("answer", "code", "unresolved"), [(b"n\n", 1, 2), (b"y\n", 0, 0)])
async def test_a_terminal_asks_for_confirmation(service: Service, answer: bytes, code: int, unresolved: int) -> None:
    """The answer "no" sends nothing; without a terminal there is no question, as every other test here shows."""
    await service.write(dead_letter(1), dead_letter(2))
    exit_code, shown = await asyncio.to_thread(dlq_on_terminal, service.bootstrap_servers, answer, "replay", "--all")
    assert exit_code == code
    assert b"would send 2," in shown
    assert b"Replay them? [y/N]" in shown
    assert (await service.listed())[1]["unresolved"] == unresolved


@pytest.mark.kafka
@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
async def test_the_ledger_is_created_with_the_topics_and_compacted(service: Service) -> None:
    """With as many partitions as the others; the dlq commands create no topic."""
    admin = AIOKafkaAdminClient(**service.options)
    await admin.start()
    try:
        resource = ConfigResource(ConfigResourceType.TOPIC, TOPICS.replay_ledger, configs={"cleanup.policy": None})
        [response] = await admin.describe_configs([resource])
        [(*_, configs)] = response.resources
        assert [(name, value) for name, value, *_ in configs] == [("cleanup.policy", "compact")]
        await admin.delete_topics([TOPICS.replay_ledger])
        done = await service.dlq("replay", "--all")
        assert (done.returncode, TOPICS.replay_ledger in done.stderr) == (1, True)
        assert "grok-insights topics" in done.stderr
        assert TOPICS.replay_ledger not in await admin.list_topics()
    finally:
        await admin.close()


@pytest.mark.parametrize("broker", ["tansu"], indirect=True)
@pytest.mark.parametrize("command", [["list"], ["replay"], ["replay", "--dry-run"]], ids=" ".join)
async def test_what_does_not_exist_is_named(service: Service, command: list[str]) -> None:
    """An error when all of it is missing, since a wrong ID would look like a success; else a line on stderr."""
    await service.write(dead_letter(1))
    missing = "there is no dead letter 99:1, of the conversation nope"
    none = await service.dlq(*command, "--id", "99:1", "--conversation", "nope", "--json")
    assert (none.returncode, none.stdout, none.stderr.splitlines()[0]) == (1, "", f"error: {missing}")
    some = await service.dlq(*command, "--conversation", "nope", "--conversation", "c-1", "--json")
    assert (some.returncode, some.stderr.splitlines()[0]) == (0, "there is no dead letter of the conversation nope")
    assert some.stdout


@pytest.mark.slow
async def test_again_and_limit_do_what_they_say(service: Service) -> None:
    """A replayed one is sent only with --again; a limit leaves the rest, and the report says so."""
    await service.write(*(dead_letter(number) for number in range(5)))
    limited = await service.replay("--all", "--limit", "2")
    assert (limited["to_send"], limited["sent"], limited["left"]) == (2, 2, 3)
    assert (await service.replay("--reason", "refused", "--reason", "bad_answer"))["sent"] == 3
    assert (await service.replay("--conversation", "c-1"))["skipped"]["replayed_already"] == 1
    assert (await service.replay("--conversation", "c-1", "--again"))["sent"] == 1


async def test_a_limited_list_says_so_also_with_json(service: Service) -> None:
    """On stderr, so that a pipe stays clean."""
    await service.write(*(dead_letter(number) for number in range(3)))
    done = await service.dlq("list", "--json", "--limit", "2")
    assert done.stderr == "lists only the newest 2 of 3 dead letters; raise --limit to see more\n"


async def test_a_stopped_replay_reports_what_it_sent(service: Service) -> None:
    """After SIGTERM, what was sent is marked, and the report adds up."""
    await service.write(*(dead_letter(number) for number in range(100)))
    with start_dlq(service.bootstrap_servers, "replay", "--all", "--json", "--rate", "5") as process:
        try:
            async with asyncio.timeout(60):
                while not any(
                    end for _, end in (await bounds(service.options, TOPICS, [TOPICS.conversations])).values()
                ):
                    assert process.poll() is None
            process.terminate()
            shown, errors = await asyncio.to_thread(process.communicate, timeout=30)
        finally:
            process.kill()
    report = json.loads(shown)
    assert (process.returncode, report["stopped"]) == (130, True), errors
    assert 0 < report["sent"] < 100
    assert report["sent"] + report["left"] == 100
    assert (await service.listed())[1]["replayed_already"] == report["sent"]


@pytest.mark.kafka
@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
def test_missing_topics_are_named(broker: Kafka) -> None:
    """With the command that creates them; asking creates none."""
    for _ in range(2):
        done = dlq(broker.bootstrap_servers, "list")
        assert done.returncode == 1
        assert "grok-insights topics" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["list"], 1, "the broker cannot be used"),
        (["show", "0:1"], 1, "the broker cannot be used"),
        (["replay", "--all"], 1, "the broker cannot be used"),
        (["replay"], 2, "no dead letters are selected"),
        (["replay", "--all", "--again"], 2, "--again needs a filter"),
        (["replay", "--all", "--rate", "nan"], 2, "invalid --rate: "),
        (["replay", "--all", "--rate", "-1"], 2, "invalid --rate: "),
        (["replay", "--id", "c-1"], 2, "invalid --id: 'c-1' is not a dead-letter ID"),
        (["list", "--conversation", "0:1"], 2, "invalid --conversation: '0:1' is a dead-letter ID"),
        (
            ["replay", "--since", "soon"],
            2,
            "invalid --since: 'soon' is neither a duration (2h) nor an ISO 8601 timestamp",
        ),
        (["show", "c-1"], 2, "not a dead-letter ID: expected PARTITION:OFFSET, for example 3:17"),
    ],
)
def test_errors_are_three_lines(arguments: list[str], code: int, what: str) -> None:
    """They have what, why and hint, without the client's own log lines; misuse is reported before a broker is asked."""
    closed = f"127.0.0.1:{free_port()}"
    done = dlq(closed, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert (f"why: no connection to {closed}: Connection refused" in done.stderr) == (code == 1)
    assert done.stderr.startswith(f"error: {what}")
    assert len(done.stderr.splitlines()) <= 3
    assert "hint: " in done.stderr
