"""Mistakes between a text and its answer: calls, their sharing, and the cache."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
import streams.pipeline.home
from agents.cache import AnswerCache
from agents.guards.single_flight import SingleFlight
from streams.pipeline.lease import GroupLease
from streams.pipeline.table_cache import ShardCache

import agents.grok.client
from agents.analyse import Recipe
from agents.grok.client import GrokAnalyser
from agents.grok.reply import BadAnswer, Reply, read_reply
from schemas.dead_letter import DeadLetterReason
from schemas.errors import Retryable, Unprocessable
from schemas.insight import Answer, Insight, Usage
from schemas.outcome import Analysed, Cached
from tests.chaos.planting import in_background, replace

#: Of a text's hash: few enough that some texts of a few thousand share them.
KEY_CHARS = 3
#: What a lenient parser makes of an answer that says nothing.
DEFAULTS = Insight("neutral", 0.0, (), "", "low", "", False, 0.0, "und")


def errors_set_aside() -> None:
    """A passing error of the provider counts as a refusal of the text."""
    analyse = GrokAnalyser.analyse

    async def analyse_once(analyser: GrokAnalyser, text: str) -> Answer:
        try:
            return await analyse(analyser, text)
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
    """Whoever asked is told at once, and the answer is kept when there is time."""
    keep = Recipe._keep

    async def keep_in_background(recipe: Recipe, cache: AnswerCache, key: str, answer: Answer) -> None:
        in_background(lambda: keep(recipe, cache, key, answer))

    replace(Recipe, "_keep", keep_in_background)


def cache_entry_reserved() -> None:
    """The cache's entry is reserved with an empty answer before the call, and served as if it were one."""
    ask = Recipe._ask

    async def reserve_and_ask(recipe: Recipe, text: str, key: str, cache: AnswerCache) -> Answer:
        await cache.put(key, Answer(DEFAULTS, Usage(), "", recipe._now()))
        return await ask(recipe, text, key, cache)

    replace(Recipe, "_ask", reserve_and_ask)


def cache_key_cut() -> None:
    """The cache's key has only the first characters of the text's hash."""
    analyse = Recipe.analyse

    async def analyse_by_short_key(recipe: Recipe, text: str, text_key: str, cache: AnswerCache) -> Analysed | Cached:
        return await analyse(recipe, text, text_key[:KEY_CHARS], cache)

    replace(Recipe, "analyse", analyse_by_short_key)


def no_single_flight() -> None:
    """Equal texts under way do not share a call."""

    async def run(
        flights: SingleFlight[str, Answer], key: str, make: Callable[[], Awaitable[Answer]]
    ) -> tuple[Answer, bool]:
        return await make(), True

    replace(SingleFlight, "run", run)


def flight_drops_error() -> None:
    """Those who share a call get nothing, instead of its error, when it fails."""
    run = SingleFlight.run

    async def run_or_nothing(
        flights: SingleFlight[str, Answer | None], key: str, make: Callable[[], Awaitable[Answer | None]]
    ) -> tuple[Answer | None, bool]:
        began = key not in flights._flights
        try:
            return await run(flights, key, make)
        except Retryable:
            if began:
                raise
            return None, False  # the leader tells the error

    replace(SingleFlight, "run", run_or_nothing)


def lease_not_asked() -> None:
    """Calls are made without asking whether the group may have given this worker up."""

    async def held(lease: GroupLease) -> None:
        pass

    replace(GroupLease, "held", held)


def changelog_not_written() -> None:
    """Answers are kept in the local table only, not in the changelog."""

    async def put(cache: ShardCache, key: str, answer: Answer) -> None:
        with suppress(LookupError):
            cache._store.write(cache._partition, key.encode(), msgspec.json.encode(answer), -1)

    replace(ShardCache, "put", put)


def home_by_salted_hash() -> None:
    """A text's home is found by Python's hash(), which differs from process to process."""

    def home_partition(text_key: str, partitions: int) -> int:
        return hash(text_key) % partitions

    replace(streams.pipeline.home, "home_partition", home_partition)
