"""A rate is kept evenly."""

from streams.dlq.pace import Pace


def test_turns_are_a_gap_apart() -> None:
    """Whoever asks early waits for all who asked before."""
    pace = Pace(10)
    assert [round(pace.wait_s(100.0), 6) for _ in range(3)] == [0.0, 0.1, 0.2]


def test_a_pause_saves_up_no_burst() -> None:
    """After a minute of silence the next two are a gap apart all the same."""
    pace = Pace(10)
    pace.wait_s(0.0)
    assert [round(pace.wait_s(60.0), 6) for _ in range(2)] == [0.0, 0.1]


def test_without_a_rate_nobody_waits() -> None:
    """As fast as it goes."""
    pace = Pace(None)
    assert [pace.wait_s(1.0) for _ in range(3)] == [0.0, 0.0, 0.0]
