"""`grok-insights dlq` on real brokers, run as a person runs it."""

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
from streams.sinks.producer import ConfirmedProducer

from schemas.dead_letter import DeadLetter, DeadLetterReason
from schemas.kafka import Header, Origin
from streams.dev.local.kafka import Kafka
from streams.dev.local.ports import free_port
from streams.dev.local.tansu import Tansu
from streams.dlq.ledger import Ledger
from streams.dlq.letter import REPLAY_COUNT, REPLAY_LETTER, read_letter
from streams.kafka.admin import create_topics
from streams.kafka.scan import bounds
from streams.sinks.dead_letters import TRUNCATED, DeadLetterSink
from tests.fakes.analysis import NOON
from tests.support.topic_log import records_of
from tests.support.topics import TOPICS

ROOT = Path(__file__).parents[2]
SECRET = "my card number is 4111"


def a_letter(number: int, **fields: Any) -> DeadLetter:
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


class Post:
    """A broker with topics, the sink that writes letters, and the command that works with them."""

    def __init__(self, bootstrap_servers: str, producer: ConfirmedProducer) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.options = {"bootstrap_servers": bootstrap_servers}
        self.producer = producer
        self.sink = DeadLetterSink(producer, TOPICS.dead_letters)

    async def write(self, *letters: DeadLetter) -> None:
        for letter in letters:
            await self.sink.send(letter, None if letter.value is None else json.loads(letter.value)["id"])

    async def dlq(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return await asyncio.to_thread(dlq, self.bootstrap_servers, *arguments)

    async def listed(self, *arguments: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Letters and summary."""
        done = await self.dlq("list", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        *letters, summary = [json.loads(line) for line in done.stdout.splitlines()]
        return letters, summary["summary"]

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
    """Exit code and what the terminal showed."""
    environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "streams", "dlq", *arguments]
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        os.write(ours, answer)
        shown = b""
        with suppress(OSError):  # Linux tells so that the other side is closed
            while chunk := os.read(ours, 65_536):
                shown += chunk
        return process.wait(30), shown
    finally:
        os.close(ours)


@pytest.fixture
async def post(broker: Tansu | Kafka) -> AsyncIterator[Post]:
    options = {"bootstrap_servers": broker.bootstrap_servers}
    await create_topics(options, TOPICS, 4, 1)
    producer = ConfirmedProducer(options, compression="gzip")
    await producer.start()
    yield Post(broker.bootstrap_servers, producer)
    await producer.stop()


async def test_letters_are_listed_newest_first_and_never_with_their_text(post: Post) -> None:
    """Filters, a limit, and the counts of all that match; `show` tells the text to whoever asks for it."""
    assert await post.listed() == ([], {"unresolved": 0, "reasons": {}, "replayed_already": 0, "shown": 0})
    await post.write(*(a_letter(number) for number in range(6)))
    letters, summary = await post.listed("--limit", "4")
    assert [letter["id"] for letter in letters] == ["c-5", "c-4", "c-3", "c-2"]
    assert summary == {"unresolved": 6, "reasons": {"refused": 3, "bad_answer": 3}, "replayed_already": 0, "shown": 4}
    refused, _ = await post.listed(
        "--reason", "refused", "--since", "2026-01-31T12:02:00", "--conversation", "c-5", "--conversation", "c-1"
    )
    assert [letter["id"] for letter in refused] == ["c-5"]
    name = refused[0]["letter"]
    assert (await post.listed("--id", name))[0] == refused
    lines, facts, value, gone = await asyncio.gather(
        post.dlq("list"), post.dlq("show", name), post.dlq("show", name, "--value"), post.dlq("show", "0:99999")
    )
    assert [len(line.split("\t")) for line in lines.stdout.splitlines()] == [9] * 6
    assert SECRET not in lines.stdout + lines.stderr + facts.stdout + facts.stderr + json.dumps(letters)
    assert "tenant: acme" in facts.stdout
    assert value.stdout == a_letter(5).value.decode()  # type: ignore[union-attr]
    assert (gone.returncode, gone.stderr.splitlines()[0]) == (1, "error: there is no letter 0:99999")


async def test_a_replay_sends_the_original_record_once(post: Post) -> None:
    """Key, value and headers, plus the letter's name; a second replay sends nothing, and the list is empty."""
    await post.write(*(a_letter(number) for number in range(4)), a_letter(4, key=None))
    assert (await post.replay("--all", "--dry-run"))["to_send"] == 5
    assert {begin - end for begin, end in (await bounds(post.options, TOPICS, [TOPICS.conversations])).values()} == {0}
    assert (await post.replay("--reason", "refused"))["reasons"] == {"refused": 2}
    letters = await records_of(post.bootstrap_servers, TOPICS.dead_letters)
    assert await post.replay("--all") == {
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
    assert (await post.replay("--all"))["sent"] == 0
    sent = {record.value: record for record in await records_of(post.bootstrap_servers, TOPICS.conversations)}
    assert len(sent) == len(await records_of(post.bootstrap_servers, TOPICS.conversations)) == 5
    for letter in letters:
        record = sent[letter.value]
        name = f"{letter.partition}:{letter.offset}".encode()
        assert record.key == dict(letter.headers).get("dlq.key")
        assert list(record.headers) == [*a_letter(0).headers, (REPLAY_LETTER, name), (REPLAY_COUNT, b"1")]
    assert (await post.listed())[1]["replayed_already"] == 5
    assert {letter["replayed_at"] is None for letter in (await post.listed("--replayed"))[0]} == {False}


async def test_two_replays_at_the_same_time_harm_nobody(post: Post) -> None:
    """Each letter is sent at least once, at most once by each, and marked."""
    await post.write(*(a_letter(number) for number in range(200)))
    reports = await asyncio.gather(post.replay("--all", "--rate", "200"), post.replay("--all", "--rate", "200"))
    sent = await records_of(post.bootstrap_servers, TOPICS.conversations)
    assert len({dict(record.headers)[REPLAY_LETTER] for record in sent}) == 200
    assert len(sent) == sum(report["sent"] for report in reports) <= 400
    ledger = Ledger()
    for record in await records_of(post.bootstrap_servers, TOPICS.replay_ledger):
        ledger.add(record.key, record.value)
    letters = await records_of(post.bootstrap_servers, TOPICS.dead_letters)
    assert all(ledger.mark_of(read_letter(letter)) for letter in letters)


async def test_a_cut_letter_is_replayed_from_its_original_or_not_at_all(post: Post) -> None:
    """A piece of a conversation is no conversation; neither is what somebody else put among the letters."""
    whole = json.dumps({"id": "c-1", "text": "x" * 1000}).encode()
    async with AIOKafkaProducer(bootstrap_servers=post.bootstrap_servers) as producer:
        stands = await producer.send_and_wait(TOPICS.conversations, whole, key=b"key-1", partition=2)
        await producer.send_and_wait(TOPICS.dead_letters, b"foreign", key=b"\x1b[2J", partition=3)
    there = a_letter(1, value=whole[:100], origin=Origin(TOPICS.conversations, 2, stands.offset))
    gone = a_letter(2, value=whole[:100], origin=Origin(TOPICS.conversations, 1, 77))
    for letter in (there, gone):
        headers = [*letter.headers_out(), (TRUNCATED, b"%d" % len(whole))]
        await post.producer.send(TOPICS.dead_letters, key=letter.key, value=letter.value, headers=headers, partition=0)
    done = await post.dlq("replay", "--all")
    assert done.returncode == 1, done.stderr
    assert "error: 2 letters cannot be replayed" in done.stderr
    assert "0:1: the letter holds 100 of" in done.stderr
    assert "3:0: not written by grok-insights" in done.stderr
    sent = await records_of(post.bootstrap_servers, TOPICS.conversations)
    assert [record.value for record in sent if REPLAY_LETTER in dict(record.headers)] == [whole]
    assert {letter["letter"] for letter in (await post.listed())[0]} == {"0:1", "3:0"}
    assert "\x1b" not in (await post.dlq("list")).stdout


@pytest.mark.parametrize("broker", ["tansu"], indirect=True)
@pytest.mark.parametrize(("answer", "code", "unresolved"), [(b"n\n", 1, 2), (b"y\n", 0, 0)])
async def test_a_person_at_a_terminal_is_asked_first(post: Post, answer: bytes, code: int, unresolved: int) -> None:
    """No is an end with nothing sent; nobody else is asked, as every other test here shows."""
    await post.write(a_letter(1), a_letter(2))
    told = await asyncio.to_thread(dlq_on_terminal, post.bootstrap_servers, answer, "replay", "--all")
    assert told[0] == code
    assert b"would send 2," in told[1]
    assert b"Replay them? [y/N]" in told[1]
    assert (await post.listed())[1]["unresolved"] == unresolved


@pytest.mark.kafka
@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
async def test_the_ledger_is_made_with_the_topics_and_compacted(post: Post) -> None:
    """With as many partitions as the letters' topic; the commands make none."""
    admin = AIOKafkaAdminClient(**post.options)
    await admin.start()
    try:
        resource = ConfigResource(ConfigResourceType.TOPIC, TOPICS.replay_ledger, configs={"cleanup.policy": None})
        [response] = await admin.describe_configs([resource])
        [(*_, configs)] = response.resources
        assert [(name, value) for name, value, *_ in configs] == [("cleanup.policy", "compact")]
        await admin.delete_topics([TOPICS.replay_ledger])
        done = await post.dlq("replay", "--all")
        assert (done.returncode, TOPICS.replay_ledger in done.stderr) == (1, True)
        assert "grok-insights topics" in done.stderr
        assert TOPICS.replay_ledger not in await admin.list_topics()
    finally:
        await admin.close()


async def test_again_and_a_limit_send_what_is_asked_for(post: Post) -> None:
    """A marked letter goes again only with --again; the limit leaves the rest, and says so."""
    await post.write(*(a_letter(number) for number in range(5)))
    limited = await post.replay("--all", "--limit", "2")
    assert (limited["to_send"], limited["sent"], limited["left"]) == (2, 2, 3)
    assert (await post.replay("--reason", "refused", "--reason", "bad_answer"))["sent"] == 3
    assert (await post.replay("--conversation", "c-1"))["skipped"]["replayed_already"] == 1
    assert (await post.replay("--conversation", "c-1", "--again"))["sent"] == 1


async def test_a_cut_list_is_told_also_with_json(post: Post) -> None:
    """On stderr, so that whoever pipes the list learns that it is not all."""
    await post.write(*(a_letter(number) for number in range(3)))
    done = await post.dlq("list", "--json", "--limit", "2")
    assert done.stderr == "cut: the newest 2 of 3 letters; more with --limit\n"


async def test_a_replay_that_is_stopped_tells_what_it_sent(post: Post) -> None:
    """SIGTERM: what was sent is marked, and its report adds up."""
    await post.write(*(a_letter(number) for number in range(100)))
    with start_dlq(post.bootstrap_servers, "replay", "--all", "--json", "--rate", "5") as process:
        try:
            async with asyncio.timeout(60):
                while not any(end for _, end in (await bounds(post.options, TOPICS, [TOPICS.conversations])).values()):
                    assert process.poll() is None
            process.terminate()
            shown, told = await asyncio.to_thread(process.communicate, timeout=30)
        finally:
            process.kill()
    report = json.loads(shown)
    assert (process.returncode, report["stopped"]) == (130, True), told
    assert 0 < report["sent"] < 100
    assert report["sent"] + report["left"] == 100
    assert (await post.listed())[1]["replayed_already"] == report["sent"]


@pytest.mark.kafka
@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
def test_missing_topics_are_named(broker: Kafka) -> None:
    """With the command that makes them; asking makes none."""
    for _ in range(2):
        done = dlq(broker.bootstrap_servers, "list")
        assert done.returncode == 1
        assert "grok-insights topics" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["list"], 1, "the broker cannot be used"),
        (["show", "0:1"], 1, "the broker cannot be used"),
        (["replay", "--all"], 1, "the broker cannot be used"),
        (["replay"], 2, "nothing says which letters to replay"),
        (["replay", "--all", "--again"], 2, "--again needs a filter"),
        (["replay", "--all", "--rate", "nan"], 2, "--rate is not understood"),
        (["replay", "--all", "--rate", "-1"], 2, "--rate is not understood"),
        (["replay", "--id", "c-1"], 2, "--id names no letter"),
        (["list", "--conversation", "0:1"], 2, "--conversation names no conversation"),
        (["replay", "--since", "soon"], 2, "--since is not understood"),
        (["show", "c-1"], 2, "this is no letter"),
    ],
)
def test_without_a_broker_three_lines_tell_what_to_do(arguments: list[str], code: int, told: str) -> None:
    """What, why, hint, and no word of the client's own; misuse is told before anything is asked."""
    done = dlq(f"127.0.0.1:{free_port()}", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"error: {told}\n")
    assert len(done.stderr.splitlines()) <= 3
    assert "hint: " in done.stderr
