"""`grok-insights dlq list | show | replay`."""

import asyncio
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console

from schemas.dead_letter import DeadLetterReason
from schemas.errors import Fatal
from schemas.kafka import Topics
from schemas.settings import load_settings
from streams.commands.help import Command, Group
from streams.commands.output import print_json, run, say
from streams.kafka.clients import client_options
from streams.operations.dlq import report
from streams.operations.dlq.dead_letter import parse_id
from streams.operations.dlq.replay import Pacer, ReplayOptions, ReplayResult, check_rate, replay_dead_letters
from streams.operations.dlq.selection import (
    Eligibility,
    Filters,
    Newest,
    Survey,
    find_dead_letter,
    parse_filters,
    survey_dead_letters,
)
from streams.stop_signal import set_at_first_stop_signal
from streams.telemetry.log import configure_logging
from streams.terminal import display_on_stderr, printable, write_rows

dlq = typer.Typer(
    name="dlq",
    cls=Group,
    help="Dead letters: list them, show one, replay them. Settings: KAFKA_*, TOPIC_PREFIX.",
    no_args_is_help=True,
)

Reasons = Annotated[
    list[DeadLetterReason] | None,
    typer.Option(
        "--reason",
        metavar="REASON",
        help=f"Only dead letters with this reason ({', '.join(DeadLetterReason)}); repeatable.",
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since", help="Only dead letters since a duration ago (30m, 2h, 3d) or an ISO 8601 timestamp (UTC)."
    ),
]
Ids = Annotated[
    list[str] | None, typer.Option("--id", help="Only the dead letter with this ID (PARTITION:OFFSET); repeatable.")
]
Conversations = Annotated[
    list[str] | None,
    typer.Option("--conversation", help="Only dead letters of the conversation with this ID; repeatable."),
]
_EXISTING = "`grok-insights dlq list` shows the existing ones; retention removed older ones"
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table or lines.")]


@dlq.command("list", cls=Command)
def list_dead_letters(
    reason: Reasons = None,
    since: Since = None,
    ids: Ids = None,
    conversations: Conversations = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number to list; all that match are counted.")] = 100,
    with_replayed: Annotated[bool, typer.Option("--replayed", help="Include replayed dead letters.")] = False,
    as_json: AsJson = False,
) -> None:
    """List unresolved dead letters, newest first, and count them by reason.

    Prints a table on a terminal, and elsewhere tab-separated lines, with the
    counts on stderr. With --json, one object a line, the last one being
    {"summary": ...}. Never shows what a conversation says.
    """
    filters, newest = _filters(reason, since, ids, conversations), Newest(limit, with_replayed=with_replayed)
    options, topics = _kafka()
    _, _, survey = run(survey_dead_letters(options, topics, filters, newest))
    _check_named(filters, survey)
    listed = newest.newest_first()
    matching = survey.unresolved.total() + (survey.by[Eligibility.REPLAYED] if with_replayed else 0)
    if matching > limit:
        say(f"lists only the newest {limit} of {matching} dead letters; raise --limit to see more")
    if as_json:
        for dead_letter, mark in listed:
            print_json(report.document(dead_letter, mark))
        print_json({"summary": {**report.survey_document(survey), "shown": len(listed)}})
        return
    if listed and sys.stdout.isatty():
        console = Console()
        console.print(report.table(listed, console.width))
    else:
        write_rows((report.row(dead_letter, mark) for dead_letter, mark in listed), sys.stdout)
    for line in report.survey_lines(survey):
        say(line)


@dlq.command("show", cls=Command)
def show_dead_letter(
    dead_letter_id: Annotated[str, typer.Argument(metavar="ID", help="As listed: PARTITION:OFFSET.")],
    with_value: Annotated[
        bool, typer.Option("--value", help="Print the conversation itself on stdout, and the rest on stderr.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show everything about one dead letter; what the conversation says only with --value."""
    wanted = parse_id(dead_letter_id)
    if wanted is None:
        what = "not a dead-letter ID: expected PARTITION:OFFSET, for example 3:17"
        raise Fatal(what, f"got {dead_letter_id!r}", "`grok-insights dlq list` shows the IDs", exit_code=2)
    found = run(find_dead_letter(*_kafka(), wanted))
    if found is None:
        raise Fatal(f"there is no dead letter {wanted}", "", _EXISTING)
    dead_letter, mark = found
    if as_json:
        headers = [{"name": name, **report.value_document(value)} for name, value in dead_letter.headers]
        value = report.value_document(dead_letter.value) if with_value else {}
        print_json({**report.document(dead_letter, mark), "headers": headers, **value})
        return
    for name, content in report.facts(dead_letter, mark):
        (say if with_value else typer.echo)(f"{name + ':':<14}{content}")
    if with_value:
        _print_value(dead_letter.value or b"")


def _print_value(value: bytes) -> None:
    """Prints the bytes as they are, but escapes them on a terminal."""
    if sys.stdout.isatty():
        typer.echo("\n".join(printable(line) for line in value.split(b"\n")))
        return
    sys.stdout.buffer.write(value)
    sys.stdout.flush()


@dlq.command("replay", cls=Command)
def replay(
    reason: Reasons = None,
    since: Since = None,
    ids: Ids = None,
    conversations: Conversations = None,
    replay_all: Annotated[
        bool, typer.Option("--all", help="Replay every dead letter; required without filters.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Include dead letters replayed before, or too often; needs a filter.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number to send.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be replayed.")] = False,
    rate: Annotated[float | None, typer.Option(help="Maximum number per second; unlimited by default.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation on a terminal.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send the records of dead letters to the topic `conversations` again, each once.

    Leaves out dead letters that were replayed before, and records that died
    again after three replays. A run that was stopped or killed can be started
    again and continues. Dead letters that arrive during the run are left for
    the next one.

    Fix the cause first: 100 dead letters in a row halt a worker.
    """
    check_rate(rate)
    filters = _filters(reason, since, ids, conversations)
    _check_scope(filters, replay_all=replay_all, again=again)
    options, topics = _kafka()
    bounds, selection, survey = run(survey_dead_letters(options, topics, filters, again=again))
    _check_named(filters, survey)
    plan = report.ReplayReport(survey, None, limit)
    if dry_run:
        _print_report(plan, as_json=as_json)
        return
    if plan.to_send and not yes:
        _ask(plan)
    result = ReplayResult()

    async def replay_until_signal(how: ReplayOptions) -> None:
        """The first SIGINT or SIGTERM lets it finish what is in flight; a second one ends the process."""
        stop = asyncio.Event()
        set_at_first_stop_signal(stop)
        await replay_dead_letters(options, topics, bounds, selection, how, result, stop)

    try:
        if survey.eligible or survey.by[Eligibility.FOREIGN]:
            with display_on_stderr() as display:
                display.begin("replayed", plan.to_send)
                how = ReplayOptions(Pacer(rate), lambda count: display.reached("replayed", count), limit)
                run(replay_until_signal(how))
                display.done("replayed")
    finally:
        outcome = report.ReplayReport(survey, result, limit)
        _print_report(outcome, as_json=as_json)
    _check_result(result, outcome.left)


def _check_named(filters: Filters, survey: Survey) -> None:
    """Names what was asked for by its ID and does not exist. Raises Fatal when nothing of it does."""
    ids = [str(one) for one in sorted(filters.ids - survey.named)]
    conversations = [f"of the conversation {printable(one)}" for one in sorted(filters.conversations - survey.named)]
    if not (ids or conversations):
        return
    what = f"there is no dead letter {', '.join([*ids, *conversations])}"
    if not survey.named:
        raise Fatal(what, "", _EXISTING)
    say(what)


def _check_scope(filters: Filters, *, replay_all: bool, again: bool) -> None:
    if again and filters.are_empty:
        hint = "filter with --reason, --since, --id or --conversation"
        raise Fatal("--again needs a filter", "it includes dead letters replayed before", hint, exit_code=2)
    if filters.are_empty and not replay_all:
        hint = "filter with --reason, --since, --id or --conversation, or select all with --all"
        raise Fatal("no dead letters are selected", "", hint, exit_code=2)


def _ask(plan: report.ReplayReport) -> None:
    """Asks for confirmation, on a terminal only."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    for line in plan.lines():
        say(line)
    if not typer.confirm("Replay them?", err=True):
        raise Fatal("nothing was replayed", "the answer was no")


def _check_result(result: ReplayResult, left: int) -> None:
    """Raises Fatal, and so sets the exit code, after a run that did not send everything."""
    if result.was_stopped:
        hint = "run it again: it continues where it stopped"
        raise Fatal("the replay was stopped", f"{left} dead letters are left", hint, exit_code=130)
    if result.failed:
        failures = "; ".join(f"{dead_letter_id}: {why}" for dead_letter_id, why in result.failures[:3])
        hint = "ask the producers of these records to send them again"
        raise Fatal(f"{result.failed} dead letters cannot be replayed", failures, hint)


def _print_report(shown: report.ReplayReport, *, as_json: bool) -> None:
    if as_json:
        print_json(shown.document())
    else:
        typer.echo("\n".join(shown.lines()))


def _kafka() -> tuple[dict[str, Any], Topics]:
    """Returns the options of Kafka clients, and the names of our topics."""
    settings = load_settings("kafka_bootstrap_servers")
    # The libraries' log lines would break the progress bar; failures are shown as errors with a hint.
    configure_logging("critical")
    return client_options(settings), settings.topics


def _filters(
    reasons: list[DeadLetterReason] | None, since: str | None, ids: list[str] | None, conversations: list[str] | None
) -> Filters:
    return parse_filters(
        [reason.value for reason in reasons or ()], since, ids or (), conversations or (), datetime.now(UTC)
    )
