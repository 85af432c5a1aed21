"""Mistakes between a text and its answer: calls, their sharing, and the table `answers`."""

import asyncio
from datetime import UTC, datetime

import msgspec

import agents.analyst
import agents.grok.client
from agents.analyse import Analysis, Flight
from agents.analyser import OnUnanswered, ignore_call
from agents.decode import Job
from agents.grok.client import GrokAnalyser
from agents.grok.reply import BadAnswer, Reply, read_reply
from schemas.dead_letter import DeadLetterReason
from schemas.errors import Retryable, Unprocessable
from schemas.insight import Answer, Insight, Usage
from schemas.outcome import Cached
from streams.engine.answers_table import TableAnswers
from streams.engine.membership import GroupLease
from tests.chaos.planting import in_background, replace

#: Of a text key: so few that some texts of a few thousand share them.
KEY_CHARS = 3
#: What a lenient parser makes of an answer that says nothing.
DEFAULTS = Insight("neutral", 0.0, (), "", "low", "", False, 0.0, "und")


def _empty_answer() -> Answer:
    return Answer(DEFAULTS, Usage(), "", datetime.now(UTC))


def errors_set_aside() -> None:
    """A passing error of the provider counts as a refusal of the text."""
    analyse = GrokAnalyser.analyse

    async def analyse_once(analyser: GrokAnalyser, text: str, on_unanswered: OnUnanswered = ignore_call) -> Answer:
        try:
            return await analyse(analyser, text, on_unanswered)
        except Retryable as error:
            raise Unprocessable(DeadLetterReason.REFUSED, error.detail) from error

    replace(GrokAnalyser, "analyse", analyse_once)


def answer_kept_unchecked() -> None:
    """An answer that fails the check is filled up with defaults, kept and delivered."""

    def read_leniently(body: bytes, cost_per_1k_usd: float | None = None) -> Reply:
        try:
            return read_reply(body, cost_per_1k_usd)
        except BadAnswer as error:
            return Reply(DEFAULTS, error.usage, "")

    replace(agents.grok.client, "read_reply", read_leniently)


def answer_kept_in_background() -> None:
    """Records are delivered at once, and their answer is kept when there is time."""

    async def deliver_and_keep(analysis: Analysis, flights: list[Flight]) -> None:
        analysis._kept(flights)
        in_background(lambda: analysis._answers.put(flights))

    replace(Analysis, "_keep", deliver_and_keep)


def cache_entry_reserved() -> None:
    """The text's entry is reserved with an empty answer before the call, and served as if it were one."""
    ask = Analysis.ask

    def reserve_and_ask(analysis: Analysis, flights: list[Flight]) -> None:
        reserved = [Flight(flight.key, flight.jobs[0]) for flight in flights]
        for flight in reserved:
            flight.value = msgspec.json.encode(_empty_answer())
        in_background(lambda: analysis._answers.put(reserved))
        ask(analysis, flights)

    replace(Analysis, "ask", reserve_and_ask)


def cache_key_cut() -> None:
    """The table's key has only the first characters of the text key."""

    def short_key(analysis: Analysis, job: Job) -> bytes:
        return (job.text_key[:KEY_CHARS] + analysis._key_suffix).encode()

    replace(Analysis, "_key", short_key)


def no_single_flight() -> None:
    """Equal texts in flight do not share a call."""

    def share(analysis: Analysis, jobs: list[Job]) -> list[Flight]:
        return [Flight(analysis._key(job), job) for job in jobs]

    replace(Analysis, "share", share)


def flight_drops_error() -> None:
    """When a call fails, those who share it get an empty answer instead of waiting for the next attempt."""
    call = Analysis._call

    async def call_for_the_first(analysis: Analysis, flight: Flight, asker: asyncio.Task[None]) -> Answer:
        try:
            return await call(analysis, flight, asker)
        except Retryable:
            flight.jobs, others = flight.jobs[:1], flight.jobs[1:]
            for job in others:
                job.outcome = Cached(_empty_answer())
            analysis._deliver(others)
            raise

    replace(Analysis, "_call", call_for_the_first)


def lease_not_asked() -> None:
    """Calls are made without asking whether the group may have replaced this worker."""

    replace(GroupLease, "is_held", property(lambda lease: True))


def changelog_not_written() -> None:
    """Answers are kept in the local table only, not in the changelog."""

    async def put(answers: TableAnswers, flights: list[Flight]) -> list[Flight]:
        for flight in flights:
            answers._write(flight.partition, [(flight.key, flight.value, -1)])
        return []

    replace(TableAnswers, "put", put)


def owner_by_salted_hash() -> None:
    """A text's owner partition is found by Python's hash(), which differs from process to process."""

    def owner_partition(text_key: bytes, partitions: int) -> int:
        return hash(text_key) % partitions

    replace(agents.analyst, "owner_partition", owner_partition)
