"""Random fetches, failures and revocations: every record ends as it must, and no text is paid for twice.

test_analyst_model.py has every order of events, and the exact count of what is open.
"""

import asyncio
import json
import random
import secrets
from collections import Counter

import pytest

from agents.decode import Job
from schemas.dead_letter import DeadLetterReason
from schemas.errors import Retryable, Unprocessable
from tests.support.factories import a_tracker, owner_of, value_of
from tests.support.topics import TOPICS
from tests.unit.agents.bench import Bench

PARTITIONS = 3
HERE = 1
STEPS = 60
TEXTS = [f"my parcel number {n} is late" for n in range(24)]
REFUSED_TEXTS = set(TEXTS[::6])
DOWN = Retryable("down")


class Run:
    """One bench with both input topics' partition HERE, whose logs grow and are read again after a revocation."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench, self.random = bench, random.Random(seed)
        self.logs: dict[str, list[bytes]] = {topic: [] for topic in TOPICS.inputs}
        self.committed = dict.fromkeys(TOPICS.inputs, 0)
        self.trackers = {topic: a_tracker(HERE, topic=topic) for topic in TOPICS.inputs}
        bench.tracker = self.trackers[TOPICS.conversations]
        refusal = Unprocessable(DeadLetterReason.REFUSED, "the provider refused")
        bench.analyser.errors = dict.fromkeys(REFUSED_TEXTS, refusal)

    async def step(self) -> None:
        await self.random.choices([self.fetch, self.wait, self.fault, self.mend, self.rebalance], [8, 6, 3, 3, 1])[0]()

    async def fetch(self) -> None:
        topic = self.random.choice(TOPICS.inputs)
        for _ in range(self.random.randrange(1, 9)):
            self.logs[topic].append(self.new_value(topic))
        self.read(topic)

    def read(self, topic: str) -> None:
        tracker = self.trackers[topic]
        self.bench.take(*self.logs[topic][tracker.next :], tracker=tracker)

    def new_value(self, topic: str) -> bytes:
        number = len(self.logs[topic])
        text = self.random.choice(["hello", *self.random.choices(TEXTS, k=8)])
        conversation_id = self.random.choice([f"{topic}-{number}"] * 9 + [f"refused-{topic}-{number}"])
        if conversation_id.startswith("refused"):
            self.bench.rows.refused[conversation_id] = Unprocessable(DeadLetterReason.UNSTORABLE, "refused")
        return self.random.choice([value_of(text, id=conversation_id)] * 9 + [b"not json"])

    async def wait(self) -> None:
        await asyncio.sleep(self.random.choice([0, 0, 0.01, 0.3, 2]))

    async def fault(self) -> None:
        bench, number = self.bench, self.random.randrange(60)
        fault = self.random.randrange(6)
        if fault == 0:
            bench.analyser.gate.clear()
        elif fault == 1:
            bench.analyser.failures = [DOWN] * self.random.randrange(4)
        elif fault == 2:
            bench.answers.is_refusing = True
        elif fault == 3:
            bench.rows.blocked.add(f"{self.random.choice(TOPICS.inputs)}-{number}")
        else:
            self.random.choice([bench.events, bench.rehomed, bench.dead_letters]).errors[number] = [DOWN] * 3

    async def mend(self) -> None:
        self.bench.analyser.gate.set()
        self.bench.answers.is_refusing = False
        self.bench.rows.blocked.clear()

    async def rebalance(self) -> None:
        """The same worker gets the partitions again, and reads what was not committed."""
        await self.bench.analyst.drain(6, 1)
        self.bench.revoke(*self.trackers.values())
        for topic, revoked in self.trackers.items():
            self.committed[topic] = revoked.committable or self.committed[topic]
            self.trackers[topic] = a_tracker(HERE, self.committed[topic], topic)
        self.bench.tracker = self.trackers[TOPICS.conversations]
        assert self.bench.analyst.open_records == 0
        for topic in TOPICS.inputs:
            self.read(topic)


# The random one has an id of its own: the processes of pytest-xdist must collect equal tests.
@pytest.mark.parametrize("seed", [*range(25), pytest.param(secrets.randbits(32), id="random")])
async def test_every_record_ends_as_it_must_and_no_text_is_paid_for_twice(seed: int) -> None:
    """Whatever fails on the way."""
    print(f"seed {seed}")
    async with Bench(partitions=PARTITIONS, max_calls=3) as bench:
        run = Run(bench, seed)
        for _ in range(STEPS):
            await run.step()
        await run.mend()
        await bench.settle()
        assert (bench.failures, bench.halts, bench.analyst.open_records) == ([], [], 0)
        for topic, log in run.logs.items():
            assert (run.trackers[topic].committable or run.committed[topic]) == len(log)
            assert [ending(bench, topic, offset) for offset in range(len(log))] == [
                expected_ending(topic, value) for value in log
            ]
        paid = Counter(bench.analyser.answered)
        assert max(paid.values(), default=1) == 1


def expected_ending(topic: str, value: bytes) -> set[str]:
    """Returns the required outcome of a record with that value."""
    if value == b"not json":
        return {"dead letter"}
    conversation = json.loads(value)
    if conversation["text"] == "hello":
        return {"dead letter"} if conversation["id"].startswith("refused") else {"filtered", "event"}
    if topic == TOPICS.conversations and owner_of(conversation["text"], PARTITIONS) != HERE:
        return {"rehomed"}
    if conversation["text"] in REFUSED_TEXTS and not conversation["id"].startswith("refused"):
        return {"dead letter", "dead"}
    return {"dead letter"} if conversation["id"].startswith("refused") else {"answered", "event"}


def ending(bench: Bench, topic: str, offset: int) -> set[str]:
    """Returns what became of the record at that offset, in all sinks."""
    senders = {"rehomed": bench.rehomed, "event": bench.events, "dead letter": bench.dead_letters}
    sent = {name for name, sender in senders.items() if (topic, offset) in {place_of(job) for job in sender.sent}}
    rows = {row.outcome for row in bench.rows.rows.values() if (row.origin.topic, row.origin.offset) == (topic, offset)}
    return sent | {"answered" if outcome in ("analysed", "cached") else outcome for outcome in rows}


def place_of(job: Job) -> tuple[str, int]:
    return job.source.topic, job.source.offset
