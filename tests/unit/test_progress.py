"""Long work shows that it moves, on a terminal and where no bar can be drawn."""

import io

from rich.console import Console

from streams.progress import LINE_EVERY_S, Display, PlainDisplay, TerminalDisplay


def drawn(display: TerminalDisplay) -> list[str]:
    """The bars' lines as they stand now, without their times."""
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


def test_a_line_tells_all_steps_that_are_under_way() -> None:
    """One for both, not one for each; what cannot be counted has none."""
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
    """What cannot be counted has one only while it is under way."""
    display = terminal()
    display.begin("starting", None)
    display.done("starting")
    display.begin("topics", 2_000)
    display.begin("rows", 0)
    display.reached("topics", 1_000)
    assert drawn(display) == ["topics 1,000/2,000", "rows 0/0"]


def test_a_bar_of_less_than_was_expected_is_full_at_its_end() -> None:
    """A log has holes, so its ends promise more records than it has."""
    display = terminal()
    display.begin("topics", 2_000)
    display.reached("topics", 1_500)
    display.done("topics")
    [task] = display._progress.tasks
    assert task.finished


def test_what_is_said_stands_in_a_line_of_its_own() -> None:
    """On either display, and taken as it is, whatever it holds."""
    stream, display = io.StringIO(), terminal()
    displays: list[Display] = [PlainDisplay(stream), display]
    for each in displays:
        each.say("[bold] is no markup")
    console_file = display._progress.console.file
    assert isinstance(console_file, io.StringIO)
    assert stream.getvalue() == "[bold] is no markup\n"
    assert console_file.getvalue() == "  [bold] is no markup\n"
