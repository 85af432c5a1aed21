"""`grok-insights dlq list | show | replay`: the dead letters, for people."""

import asyncio
import sys
from collections.abc import Coroutine
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from schemas.dead_letter import DeadLetterReason
from schemas.errors import Fatal
from schemas.kafka import Topics
from schemas.settings import load_settings
from streams.commands.output import print_json, run, say
from streams.dlq import views
from streams.dlq.account import account_of
from streams.dlq.broker_errors import told_as_fatal
from streams.dlq.filters import Filters, filters_of
from streams.dlq.ledger import Mark, read_ledger
from streams.dlq.letter import Letter, LetterId, parse_letter_id
from streams.dlq.pace import Pace, check_rate
from streams.dlq.reading import Bounds, find_letter, letter_bounds, letters
from streams.dlq.replay import Orders, Replayed
from streams.dlq.run import replay_letters
from streams.dlq.selection import Selection
from streams.dlq.survey import Entry, Newest, Survey, survey_of
from streams.kafka.clients import client_options
from streams.stop_signal import set_at_first_stop_signal
from streams.telemetry.log import configure_logging
from streams.terminal import display_on_stderr, printable

T = TypeVar("T")
Options = dict[str, Any]

dlq = typer.Typer(
    name="dlq",
    help="Dead letters: list them, show one, send them back into the stream. Settings: KAFKA_*, TOPIC_PREFIX.",
    no_args_is_help=True,
)

Reasons = Annotated[list[DeadLetterReason] | None, typer.Option("--reason", help="Only of this reason; repeatable.")]
Since = Annotated[
    str | None, typer.Option("--since", help="Only what died since: a span (30m, 2h, 3d) or an ISO time (UTC).")
]
Ids = Annotated[list[str] | None, typer.Option("--id", help="Only these letters (partition:offset); repeatable.")]
Conversations = Annotated[
    list[str] | None, typer.Option("--conversation", help="Only letters of these conversations' ids; repeatable.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table or lines.")]


@dlq.command("list")
def list_letters(
    reason: Reasons = None,
    since: Since = None,
    ids: Ids = None,
    conversations: Conversations = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many; all that match are counted.")] = 100,
    with_replayed: Annotated[bool, typer.Option("--replayed", help="Also those that have been replayed.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the letters that wait for somebody, newest first, and count them by reason.

    A table on a terminal, elsewhere one line a letter with tabs between, the counts on stderr.
    With --json one object a line, the last one being {"summary": ...}. What a conversation says is never shown.
    """
    filters, newest = _filters(reason, since, ids, conversations), Newest(limit)
    options, topics = _kafka()
    survey = _run(_survey(options, topics, filters, newest, with_replayed=with_replayed))
    matching = survey.unresolved.total() + (survey.replayed if with_replayed else 0)
    if matching > limit:
        say(f"cut: the newest {limit} of {matching} letters; more with --limit")
    if as_json:
        for entry in newest.entries():
            print_json(views.document(entry.letter, entry.size_bytes, entry.mark))
        print_json({"summary": {**views.survey_document(survey), "shown": len(newest.entries())}})
        return
    _print_entries(newest.entries(), topics)
    for line in views.survey_lines(survey):
        say(line)


@dlq.command("show")
def show_letter(
    letter: Annotated[str, typer.Argument(metavar="LETTER", help="As listed: partition:offset.")],
    with_value: Annotated[
        bool, typer.Option("--value", help="Also the conversation itself: the bytes on stdout, the rest on stderr.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show everything about one letter; what the conversation says only with --value."""
    letter_id = parse_letter_id(letter)
    if letter_id is None:
        hint = "give partition:offset, as `grok-insights dlq list` shows it"
        raise Fatal("this is no letter", f"{letter!r} is not partition:offset", hint, exit_code=2)
    found, mark = _run(_find(*_kafka(), letter_id))
    if as_json:
        headers = [{"name": name, **views.value_document(value)} for name, value in found.headers]
        value = views.value_document(found.value) if with_value else {}
        print_json({**views.document(found, found.size_bytes, mark), "headers": headers, **value})
        return
    tell = say if with_value else typer.echo
    for name, content in views.facts(found, mark):
        tell(f"{name + ':':<14}{content}")
    if with_value:
        _print_value(found.value or b"")


@dlq.command("replay")
def replay(
    reason: Reasons = None,
    since: Since = None,
    ids: Ids = None,
    conversations: Conversations = None,
    replay_all: Annotated[bool, typer.Option("--all", help="Every letter; needed where no filter is given.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also what was replayed already or too often; only with a filter.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Send at most so many.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be replayed.")] = False,
    rate: Annotated[float | None, typer.Option(help="At most so many a second; as fast as it goes.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first. Only a terminal is asked.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send letters back into the stream, each once: what has been replayed is left out, and records that died again
    after three replays.

    Stopped or killed, it can be run again and goes on. Letters that die during the run are not part of it, and one
    whose record dies again is a new letter. Remove the cause first: 100 records in a row that die stop a worker.
    """
    check_rate(rate)
    filters = _filters(reason, since, ids, conversations)
    _check_meant(filters, replay_all=replay_all, again=again)
    options, topics = _kafka()
    bounds, selection, survey = _run(_plan(options, topics, filters, again=again))
    planned = account_of(survey, Replayed(), limit)
    if dry_run:
        _print_report(as_json, views.plan_document(survey, planned), views.plan_lines(survey, planned))
        return
    if planned.to_send and not yes:
        _ask(views.plan_lines(survey, planned))
    done = Replayed()
    try:
        if survey.to_send or survey.foreign:
            with display_on_stderr() as display:
                display.begin("replayed", planned.to_send)
                orders = Orders(Pace(rate), lambda count: display.reached("replayed", count), limit)
                _run(_replay(options, topics, bounds, selection, orders, done))
                display.done("replayed")
    finally:
        account = account_of(survey, done, limit)
        _print_report(as_json, views.replay_document(done, account), views.replay_lines(done, account))
    _check_done(done, account.left)


def _check_meant(filters: Filters, *, replay_all: bool, again: bool) -> None:
    if again and filters.are_empty:
        hint = "name letters with --reason, --since, --id or --conversation"
        raise Fatal("--again needs a filter", "it sends also what has been replayed", hint, exit_code=2)
    if filters.are_empty and not replay_all:
        hint = "name letters with --reason, --since, --id or --conversation, or mean all of them with --all"
        raise Fatal("nothing says which letters to replay", "", hint, exit_code=2)


def _check_done(done: Replayed, left: int) -> None:
    """A run that did not do everything is told so, by its exit code too."""
    if done.was_stopped:
        hint = "run it again: it goes on where it stopped"
        raise Fatal("the replay was stopped", f"{left} letters are left", hint, exit_code=130)
    if done.failed:
        names = "; ".join(f"{letter_id}: {why}" for letter_id, why in done.named[:3])
        hint = "ask whoever produced the records to send them again"
        raise Fatal(f"{done.failed} letters cannot be replayed", names, hint)


def _kafka() -> tuple[Options, Topics]:
    """Options of Kafka clients, and the names of our topics."""
    settings = load_settings("kafka_bootstrap_servers")
    # What libraries say of the brokers would stand across the bar; failures are told as what, why and hint.
    configure_logging("critical")
    return client_options(settings), settings.topics


def _filters(
    reasons: list[DeadLetterReason] | None, since: str | None, ids: list[str] | None, conversations: list[str] | None
) -> Filters:
    return filters_of(
        [reason.value for reason in reasons or ()], since, ids or (), conversations or (), datetime.now(UTC)
    )


def _run(work: Coroutine[Any, Any, T]) -> T:
    with told_as_fatal():
        done: T = run(work)
    return done


async def _survey(options: Options, topics: Topics, filters: Filters, newest: Newest, *, with_replayed: bool) -> Survey:
    bounds, selection = await letter_bounds(options, topics), Selection(filters, await read_ledger(options, topics))
    async with aclosing(letters(options, bounds)) as found:
        return await survey_of(found, selection, newest, with_replayed=with_replayed)


async def _find(options: Options, topics: Topics, letter_id: LetterId) -> tuple[Letter, Mark | None]:
    found = await find_letter(options, topics, letter_id)
    if found is None:
        hint = "`grok-insights dlq list` shows those that are there; older ones were removed by the topic's retention"
        raise Fatal(f"there is no letter {letter_id}", "", hint)
    return found, (await read_ledger(options, topics)).mark_of(found)


async def _plan(options: Options, topics: Topics, filters: Filters, *, again: bool) -> tuple[Bounds, Selection, Survey]:
    bounds = await letter_bounds(options, topics)
    selection = Selection(filters, await read_ledger(options, topics), again)
    async with aclosing(letters(options, bounds)) as found:
        return bounds, selection, await survey_of(found, selection)


async def _replay(
    options: Options, topics: Topics, bounds: Bounds, selection: Selection, orders: Orders, done: Replayed
) -> None:
    """Until the first SIGINT or SIGTERM; what is under way then is finished, unless another one comes."""
    stop = asyncio.Event()
    set_at_first_stop_signal(stop)
    await replay_letters(options, topics, bounds, selection, orders, done, stop)


def _ask(plan: list[str]) -> None:
    """A person at a terminal is asked; a program meant what it said."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    for line in plan:
        say(line)
    if not typer.confirm("Replay them?", err=True):
        raise Fatal("nothing was replayed", "the answer was no")


def _print_report(as_json: bool, document: dict[str, Any], lines: list[str]) -> None:
    if as_json:
        print_json(document)
        return
    typer.echo("\n".join(lines))


def _print_entries(entries: list[Entry], topics: Topics) -> None:
    if entries and sys.stdout.isatty():
        Console().print(views.table(entries, topics.conversations))
        return
    for entry in entries:
        typer.echo("\t".join(views.row(entry)))


def _print_value(value: bytes) -> None:
    """As it is, byte for byte; on a terminal without what could steer it."""
    if sys.stdout.isatty():
        typer.echo("\n".join(printable(line) for line in value.split(b"\n")))
        return
    sys.stdout.buffer.write(value)
    sys.stdout.flush()
