"""Progress on a terminal and elsewhere, and text made safe to print."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from streams.terminal import LINE_EVERY_S, Display, PlainDisplay, TerminalDisplay, printable


def drawn(display: TerminalDisplay) -> list[str]:
    """Returns the lines of the bars as they are now, without their times."""
    display._progress.console.print(display._progress.get_renderable())
    file = display._progress.console.file
    assert isinstance(file, io.StringIO)
    lines = [line.rsplit(maxsplit=2)[0] for line in file.getvalue().splitlines()]
    return [" ".join(word for word in line.split() if set(word) - set("━╸╺")) for line in lines]


def terminal() -> TerminalDisplay:
    return TerminalDisplay(Console(file=io.StringIO(), width=100, color_system=None, force_terminal=True))


def test_lines_come_every_few_seconds_and_at_the_end_of_a_step() -> None:
    """A log file is not filled by a line for each record."""
    stream, now_s = io.StringIO(), [0.0]
    display = PlainDisplay(stream, lambda: now_s[0])
    display.begin("rows", 100)
    display.reached("rows", 10)
    now_s[0] = LINE_EVERY_S
    display.reached("rows", 20)
    display.reached("rows", 30)
    display.done("rows")
    assert stream.getvalue().splitlines() == ["rows 20 of 100", "rows 30"]


def test_a_line_shows_all_running_steps() -> None:
    """One line for both; a step without a total has none."""
    stream, now_s = io.StringIO(), [0.0]
    display = PlainDisplay(stream, lambda: now_s[0])
    display.begin("starting", None)
    display.done("starting")
    display.begin("posted", 3)
    display.begin("ended", 3)
    display.reached("posted", 3)
    now_s[0] = LINE_EVERY_S
    display.reached("ended", 2)
    display.done("posted")
    display.done("ended")
    assert stream.getvalue().splitlines() == ["posted 3 of 3, ended 2 of 3", "posted 3", "ended 2"]


def test_a_terminal_has_a_bar_for_each_step_with_its_count() -> None:
    """A step without a total has one only while it runs."""
    display = terminal()
    display.begin("starting", None)
    display.done("starting")
    display.begin("topics", 2_000)
    display.begin("rows", 0)
    display.reached("topics", 1_000)
    assert drawn(display) == ["topics 1,000/2,000", "rows 0/0"]


def test_a_bar_of_less_than_was_expected_is_full_at_its_end() -> None:
    """A log has gaps, so its offsets suggest more records than it has."""
    display = terminal()
    display.begin("topics", 2_000)
    display.reached("topics", 1_500)
    display.done("topics")
    [task] = display._progress.tasks
    assert task.finished


def test_lines_after_the_end_follow_the_bars() -> None:
    """No bar is drawn again, and none is left of a step that only pulsed, even if it was not done."""
    display = terminal()
    with display:
        display.begin("starting", None)
        display.begin("posted", 2)
        display.reached("posted", 2)
    display.say("stopping")
    file = display._progress.console.file
    assert isinstance(file, io.StringIO)
    *_, posted, stopping = Text.from_ansi(file.getvalue()).plain.splitlines()
    assert "2/2" in posted
    assert stopping == "  stopping"


def test_a_message_is_a_line_of_its_own() -> None:
    """On either display, and never read as markup."""
    stream, display = io.StringIO(), terminal()
    displays: list[Display] = [PlainDisplay(stream), display]
    for each in displays:
        each.say("[bold] is not markup")
    console_file = display._progress.console.file
    assert isinstance(console_file, io.StringIO)
    assert stream.getvalue() == "[bold] is not markup\n"
    assert console_file.getvalue() == "  [bold] is not markup\n"


@pytest.mark.parametrize(
    ("given", "shown"),
    [(None, ""), ("a\tb", "a\\tb"), (b"\x1b[2J", "\\x1b[2J"), (b"\xff", "\ufffd"), ("Grüße", "Grüße")],
)
def test_control_characters_are_escaped(given: bytes | str | None, shown: str) -> None:
    """A foreign key must not move the cursor, nor make two lines of one."""
    assert printable(given) == shown
