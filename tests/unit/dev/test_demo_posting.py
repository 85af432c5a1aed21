"""The sample of the demo, the script that makes it, and how it is posted and waited for."""

import asyncio
import gzip
import importlib.util
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web

from agents.prefilter.low_value import low_value
from agents.text_key import canonical_text
from schemas.conversation import Conversation, decode_conversation
from schemas.errors import Fatal
from streams.dev.demo import feeder, run
from streams.dev.demo.feeder import MAX_AT_ONCE, Feeder, read_sample, retry_after_s
from streams.dev.demo.run import InsightsTable, wait_for_rows
from streams.dev.local.stack import Stack
from streams.resources import infra

BODIES = {f"c{number}": b'{"id":"c%d","text":"good"}' % number for number in range(200)}


class Gateway:
    """Answers with the statuses in `answers`, then 202; records what it accepted and how many requests came at once."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[int] = []
        self.accepted: list[str] = []
        self.most_at_once = self._at_once = 0
        self.opens_at = 0  # this many requests must be in flight before any is answered
        self._open = asyncio.Event()

    async def take(self, request: web.Request) -> web.Response:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        body = await request.json()
        if self._at_once >= self.opens_at:
            self._open.set()
        await self._open.wait()
        self._at_once -= 1
        status = self.answers.pop(0) if self.answers else 202
        if status == 202:
            self.accepted.append(body["id"])
        return web.Response(status=status, headers={"Retry-After": "0"}, text="why")


@pytest.fixture
async def gateway(unused_tcp_port_factory: Callable[[], int]) -> AsyncIterator[Gateway]:
    taken = Gateway()
    application = web.Application()
    application.router.add_post("/api/v1/conversations", taken.take)
    runner = web.AppRunner(application)
    await runner.setup()
    port = unused_tcp_port_factory()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    taken.url = f"http://127.0.0.1:{port}"
    yield taken
    await runner.cleanup()


async def test_every_request_is_posted_once(gateway: Gateway) -> None:
    """Each 202 is reported, and exactly MAX_AT_ONCE requests are in flight."""
    gateway.opens_at = MAX_AT_ONCE
    accepted: list[int] = []
    await Feeder(gateway.url, accepted.append).post_all(BODIES)
    assert sorted(gateway.accepted) == sorted(BODIES)
    assert accepted == list(range(1, len(BODIES) + 1))
    assert gateway.most_at_once == MAX_AT_ONCE


async def test_a_busy_gateway_is_asked_again(gateway: Gateway) -> None:
    """429 and 503 are counted and tried again; nothing is lost."""
    gateway.answers = [429, 503, 429]
    posting = Feeder(gateway.url, lambda _: None)
    await posting.post_all(dict(list(BODIES.items())[:10]))
    assert sorted(gateway.accepted) == sorted(list(BODIES)[:10])
    assert posting.busy_replies == 3


async def test_a_refusal_ends_it_with_the_reason(gateway: Gateway) -> None:
    """A request that will never be accepted is not repeated."""
    gateway.answers = [422]
    with pytest.raises(Fatal, match="refused") as refused:
        await Feeder(gateway.url, lambda _: None).post_all(BODIES)
    assert "status 422, why" in refused.value.why


async def test_a_gateway_that_is_gone_ends_it(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port_factory: Callable[[], int]
) -> None:
    """The number of attempts is bounded."""
    monkeypatch.setattr(feeder, "PAUSE_S", 0.0)
    with pytest.raises(Fatal, match="the gateway does not answer"):
        await Feeder(f"http://127.0.0.1:{unused_tcp_port_factory()}", lambda _: None).post_all({"c0": BODIES["c0"]})


@pytest.mark.parametrize(("header", "expected"), [("7", 7.0), (None, 1.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 1.0)])
def test_retry_after_is_read_in_seconds(header: str | None, expected: float) -> None:
    """The gateway sends whole seconds; anything else gets a default."""
    assert retry_after_s(header) == expected


FOLDER = infra("sample")


def conversations() -> list[Conversation]:
    lines = (FOLDER / "sample.jsonl").read_bytes().splitlines()
    return [decode_conversation(line, from_topic=True)[0] for line in lines]


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_sample", FOLDER / "make_sample.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_source(folder: Path, name: str, records: list[dict[str, Any]]) -> None:
    with gzip.open(folder / name, "wt") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    talk = [{"role": "user", "text": "Hello", "ts": "2020-05-25T21:56:46Z"}, {"role": "agent", "text": "Hi"}]
    ids = [f"star:{number}" for number in range(400)]
    write_source(
        tmp_path, "conversations-support.jsonl.gz", [{"id": i, "source": "star", "messages": talk} for i in ids]
    )
    post = {"id": "vader-tweets:1", "source": "vader-tweets", "text": "so good", "label": "positive", "dup_count": 3}
    write_source(tmp_path, "posts-sentiment.jsonl.gz", [post])
    return tmp_path


def test_the_sample_is_small() -> None:
    """It travels with every installation: at most 1 MiB."""
    assert (FOLDER / "sample.jsonl").stat().st_size <= 1024 * 1024


def test_every_record_is_a_conversation_with_its_own_id() -> None:
    """The gateway would accept each line, and each ends as its own row."""
    ids = [conversation.id for conversation in conversations()]
    assert None not in ids
    assert len(ids) == len(set(ids)) >= 600


def test_the_sample_has_work_for_cache_and_prefilter() -> None:
    """A fifth to a third of all are repeats; some are of too little value for a call, most are not."""
    texts = [canonical_text(conversation) for conversation in conversations()]
    repeats = sum(count - 1 for text, count in Counter(texts).items() if low_value(text) is None)
    assert 0.15 < repeats / len(texts) < 0.33
    assert 40 <= sum(low_value(text) is not None for text in texts) < len(texts) / 5


def test_a_repeat_says_the_same_as_its_first() -> None:
    """`...-again-1` is the conversation `...` under another id."""
    by_id = {str(conversation.id): conversation for conversation in conversations()}
    again = [identifier for identifier in by_id if "-again-" in identifier]
    assert again
    for identifier in again:
        first = by_id[identifier.partition("-again-")[0]]
        assert canonical_text(by_id[identifier]) == canonical_text(first)


def test_a_part_of_the_sample_has_repeats_too() -> None:
    """The first hundred show the cache, too."""
    texts = [canonical_text(conversation) for conversation in conversations()[:100]]
    assert len(texts) - len(set(texts)) >= 5


def test_every_source_is_named_with_a_licence_that_is_there() -> None:
    """Each source has a line in SOURCES.md, under MIT or Apache-2.0, with the licence's text beside it."""
    lines = (FOLDER / "SOURCES.md").read_text().splitlines()
    named = {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}
    for source in {str(conversation.source) for conversation in conversations()}:
        licence = re.search(r"(?:MIT|Apache-2\.0) \(`([\w.-]+)`\)", named[source])
        assert licence is not None
        assert (FOLDER / "LICENSES" / licence[1]).stat().st_size > 500


def test_the_counts_in_sources_are_those_of_the_sample() -> None:
    """The table says how many conversations and posts of each source there are, repeats and turns included."""
    counted = Counter(str(conversation.source) for conversation in conversations())
    for line in (FOLDER / "SOURCES.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 4 and cells[1] in counted:
            assert sum(map(int, re.findall(r"\d+", cells[4]))) == counted[cells[1]]


def test_the_script_gives_the_same_for_the_same(source: Path) -> None:
    """Neither the time nor chance matters."""
    made = script().sample(source)
    assert made == script().sample(source)
    assert len({record["id"] for record in made}) == len(made)


def test_the_script_repeats_what_the_source_repeats(source: Path) -> None:
    """A post that occurs three times in the source has at least two repeats; labels are left out."""
    posts = [record for record in script().sample(source) if record["source"] == "vader-tweets"]
    assert {record["id"] for record in posts} >= {"vader-tweets:1", "vader-tweets:1-again-1", "vader-tweets:1-again-2"}
    assert all(record.keys() == {"id", "source", "text"} for record in posts)


def test_the_script_makes_short_turns_conversations(source: Path) -> None:
    """They come from conversations that are not part of the sample themselves."""
    made = {record["id"]: record for record in script().sample(source)}
    turns = [identifier for identifier in made if identifier.endswith((":opening", ":closing"))]
    assert len(turns) == 80
    assert all(made[turn]["text"] == "Hello" and turn.rpartition(":")[0] not in made for turn in turns)


def test_a_limit_takes_the_first() -> None:
    """`--limit` gives the same ones each time."""
    assert list(read_sample(3)) == [c.id for c in conversations()[:3]]
    assert len(read_sample()) == len(conversations())


def test_a_damaged_sample_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the line."""
    (tmp_path / "sample.jsonl").write_text('{"id": "a", "text": "good"}\n{"id": \n')
    monkeypatch.setattr(feeder, "infra", lambda _: tmp_path)
    with pytest.raises(Fatal, match=r"line 2 of sample\.jsonl"):
        read_sample()


class Table:
    """Has one row more at each look, up to `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows = 0

    async def count(self) -> int:
        self._rows = min(self._rows + 1, self._most)
        return self._rows

    async def missing(self, ids: Sequence[str]) -> list[str]:
        return list(ids[self._rows :])


class Silent:
    """A display that notes the last count."""

    last = 0

    def say(self, line: str) -> None: ...

    def begin(self, step: str, total: int | None) -> None: ...

    def reached(self, step: str, count: int) -> None:
        self.last = count

    def done(self, step: str) -> None: ...


def stack(check_running: Callable[[], None] = lambda: None) -> Stack:
    return cast(Stack, SimpleNamespace(check_running=check_running, log=SimpleNamespace(path="demo.log")))


async def wait(
    posting: "asyncio.Task[None]", table: Table, ids: list[str], stack: Stack, display: Silent | None = None
) -> None:
    await wait_for_rows(ids, posting, cast(InsightsTable, table), stack, display or Silent())


async def test_it_ends_when_every_conversation_has_its_row() -> None:
    """The display has seen all of them."""
    display = Silent()
    async with asyncio.TaskGroup() as group:
        posting = group.create_task(asyncio.sleep(0))
        await wait(posting, Table(3), ["a", "b", "c"], stack(), display)
    assert display.last == 3


async def test_rows_that_do_not_come_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait is bounded; the error says what is missing and where the log is."""
    monkeypatch.setattr(run, "STALLED_AFTER_S", 0.0)
    posting = asyncio.create_task(asyncio.sleep(0))
    with pytest.raises(Fatal, match="2 of 3 conversations have no row") as stalled:
        await wait(posting, Table(1), ["a", "b", "c"], stack())
    assert "b, c" in stalled.value.why
    assert "demo.log" in stalled.value.hint


async def test_a_process_that_ended_ends_the_waiting() -> None:
    """The stack's own error is the one that is raised; waiting on would be in vain."""

    def check_running() -> None:
        raise Fatal("worker-1 has ended")

    posting = asyncio.create_task(asyncio.sleep(0))
    with pytest.raises(Fatal, match="worker-1 has ended"):
        await wait(posting, Table(1), ["a", "b"], stack(check_running))
    await posting


async def test_a_failed_posting_ends_the_waiting() -> None:
    """Its own error is the one that is raised."""

    async def fail() -> None:
        raise Fatal("the gateway refused a conversation")

    posting = asyncio.create_task(fail())
    began = time.monotonic()
    with pytest.raises(Fatal, match="refused"):
        await wait(posting, Table(0), ["a"], stack())
    assert time.monotonic() - began < run.STALLED_AFTER_S
