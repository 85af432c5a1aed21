"""`grok-insights dlq list | show | replay`: the dead letters, for people."""

import sys
from collections.abc import Coroutine
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from schemas.dead_letter import DeadLetterReason
from schemas.errors import Fatal
from schemas.settings_file import load_settings
from streams.commands.output import print_json, run, say
from streams.dlq import views
from streams.dlq.filters import Filters, filters_of
from streams.dlq.ledger import Ledger, Mark, read_ledger
from streams.dlq.letter import Letter, LetterId, parse_letter_id
from streams.dlq.pace import Pace
from streams.dlq.progress import progress_on_stderr
from streams.dlq.reading import Bounds, find_letter, letter_bounds, letters, told_as_fatal
from streams.dlq.replay import Replayed
from streams.dlq.run import replay_letters
from streams.dlq.survey import Entry, Newest, Survey, survey_of
from streams.kafka_client import client_options
from streams.telemetry.log import configure_logging

T = TypeVar("T")
Options = dict[str, Any]

dlq = typer.Typer(
    name="dlq",
    help="Dead letters: list them, show one, send them back into the stream. Settings: KAFKA_*.",
    no_args_is_help=True,
)

Reasons = Annotated[list[DeadLetterReason] | None, typer.Option("--reason", help="Only of this reason; repeatable.")]
Since = Annotated[
    str | None, typer.Option("--since", help="Only what died since: a span (30m, 2h, 3d) or an ISO time (UTC).")
]
Ids = Annotated[
    list[str] | None,
    typer.Option("--id", help="Only these: a letter as listed (partition:offset) or a conversation; repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table or lines.")]


@dlq.command("list")
def list_letters(
    reason: Reasons = None,
    since: Since = None,
    ids: Ids = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many; all that match are counted.")] = 100,
    with_replayed: Annotated[bool, typer.Option("--replayed", help="Also those that have been replayed.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the letters that wait for somebody, newest first, and count them by reason.

    A table on a terminal, elsewhere one line a letter with tabs between, the counts on stderr.
    With --json one object a line, the last one being {"summary": ...}. What a conversation says is never shown.
    """
    filters, newest = _filters(reason, since, ids), Newest(limit)
    survey = _run(_survey(_options(), filters, newest, with_replayed=with_replayed))
    if as_json:
        for entry in newest.entries():
            print_json(views.document(entry.letter, entry.size_bytes, entry.mark))
        print_json({"summary": {**views.survey_document(survey), "shown": len(newest.entries())}})
        return
    _print_entries(newest.entries())
    matching = survey.waiting.total() + (survey.replayed if with_replayed else 0)
    if matching > limit:
        say(f"the newest {limit} of {matching}; more with --limit")
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
    options = _options()
    found, mark = _run(_find(options, letter_id))
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
    replay_all: Annotated[bool, typer.Option("--all", help="Every letter; needed where no filter is given.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be replayed.")] = False,
    rate: Annotated[float | None, typer.Option(min=0.1, help="At most so many a second; as fast as it goes.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first. Only a terminal is asked.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send letters back into the stream, each once: what has been replayed is left out.

    Stopped or killed, it can be run again and goes on. Letters that die during the run are not part of it, and one
    whose record dies again is a new letter. Remove the cause first: 100 records in a row that die stop a worker.
    """
    filters = _filters(reason, since, ids)
    if filters.are_empty and not replay_all:
        hint = "name letters with --reason, --since or --id, or mean all of them with --all"
        raise Fatal("nothing says which letters to replay", "", hint, exit_code=2)
    options = _options()
    plan = _run(_plan(options, filters))
    survey = plan[-1]
    if not dry_run and survey.to_replay and not yes:
        _ask(survey)
    done = Replayed() if dry_run else _replay(options, plan, filters, rate)
    if as_json:
        print_json(views.replay_document(survey, done, dry_run=dry_run))
    else:
        typer.echo("\n".join(views.replay_lines(survey, done, dry_run=dry_run)))
    if done.failed:
        names = "; ".join(f"{letter_id}: {why}" for letter_id, why in done.named[:3])
        hint = "ask whoever produced the records to send them again"
        raise Fatal(f"{done.failed} letters cannot be replayed", names, hint)


def _options() -> Options:
    settings = load_settings("kafka_bootstrap_servers")
    # What libraries say of the brokers would stand across the bar; failures are told as what, why and hint.
    configure_logging("critical")
    return client_options(settings)


def _filters(reasons: list[DeadLetterReason] | None, since: str | None, ids: list[str] | None) -> Filters:
    return filters_of([reason.value for reason in reasons or ()], since, ids or (), datetime.now(UTC))


def _run(work: Coroutine[Any, Any, T]) -> T:
    with told_as_fatal():
        done: T = run(work)
    return done


async def _survey(options: Options, filters: Filters, newest: Newest, *, with_replayed: bool) -> Survey:
    bounds, ledger = await letter_bounds(options), await read_ledger(options)
    async with aclosing(letters(options, bounds)) as found:
        return await survey_of(found, filters, ledger, newest, with_replayed=with_replayed)


async def _find(options: Options, letter_id: LetterId) -> tuple[Letter, Mark | None]:
    found = await find_letter(options, letter_id)
    if found is None:
        hint = "`grok-insights dlq list` shows those that are there; older ones were removed by the topic's retention"
        raise Fatal(f"there is no letter {letter_id}", "", hint)
    return found, (await read_ledger(options)).mark_of(found)


async def _plan(options: Options, filters: Filters) -> tuple[Bounds, Ledger, Survey]:
    bounds, ledger = await letter_bounds(options), await read_ledger(options)
    async with aclosing(letters(options, bounds)) as found:
        return bounds, ledger, await survey_of(found, filters, ledger)


def _replay(options: Options, plan: tuple[Bounds, Ledger, Survey], filters: Filters, rate: float | None) -> Replayed:
    bounds, ledger, survey = plan
    if not survey.waiting:
        return Replayed()
    with progress_on_stderr(survey.to_replay) as progress:
        return _run(replay_letters(options, bounds, filters, ledger, Pace(rate), progress.replayed))


def _ask(survey: Survey) -> None:
    """A person at a terminal is asked; a program meant what it said."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    for line in views.replay_lines(survey, Replayed(), dry_run=True):
        say(line)
    if not typer.confirm("Replay them?", err=True):
        raise Fatal("nothing was replayed", "the answer was no")


def _print_entries(entries: list[Entry]) -> None:
    if entries and sys.stdout.isatty():
        Console().print(views.table(entries))
        return
    for entry in entries:
        typer.echo("\t".join(views.row(entry)))


def _print_value(value: bytes) -> None:
    """As it is, byte for byte; on a terminal without what could steer it."""
    if sys.stdout.isatty():
        typer.echo("\n".join(views.printable(line) for line in value.split(b"\n")))
        return
    sys.stdout.buffer.write(value)
    sys.stdout.flush()
