"""A replay shows that it moves where no bar can be drawn."""

from io import StringIO

from streams.dlq.progress import LINE_EVERY_S, PlainLines


def test_lines_come_now_and_then_and_at_the_end() -> None:
    """One each LINE_EVERY_S seconds, however many letters go by, and one for the last."""
    now_s, stream = 0.0, StringIO()
    lines = PlainLines(stream, 4, lambda: now_s)
    for count in (1, 2, 3, 4):
        lines.replayed(count)
        now_s += LINE_EVERY_S / 2
    assert stream.getvalue().splitlines() == ["replayed 3 of 4", "replayed 4 of 4"]
