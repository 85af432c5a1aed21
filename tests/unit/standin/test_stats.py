"""The stand-in's account: calls, texts and bills."""

from contextlib import suppress

from streams.standin.faults import FaultKind
from streams.standin.stats import Stats


def test_texts_are_told_apart_and_repetitions_counted() -> None:
    """Three calls, two texts, one asked for twice but billed once."""
    stats = Stats()
    for text, billed in (("a", False), ("a", True), ("b", True)):
        digest = stats.began(text, "me")
        if billed:
            stats.billed(digest, 10)
        stats.ended("me", cut_off=False)
    figures = stats.snapshot()
    assert (figures["calls"], figures["distinct_texts"], figures["repeated_texts"]) == (3, 2, 1)
    assert (figures["billed"], figures["billed_again_texts"], figures["billed_usd_ticks"]) == (2, 0, 20)


def test_calls_under_way_outlive_a_reset() -> None:
    """in_flight is a state, not a count: it never becomes negative."""
    stats = Stats()
    stats.began("a", "me")
    stats.began("b", "you")
    stats.reset()
    assert (stats.snapshot()["calls"], stats.snapshot()["in_flight"], stats.snapshot()["max_in_flight"]) == (0, 2, 2)
    stats.ended("me", cut_off=True)
    stats.ended("you", cut_off=False)
    assert (stats.snapshot()["in_flight"], stats.snapshot()["cut_off"]) == (0, 1)


def test_replies_are_counted_by_status_and_faults_by_kind() -> None:
    """Only a 200 is an answer."""
    stats = Stats()
    stats.replied(200)
    stats.replied(429)
    stats.faulted(FaultKind.HTTP_429)
    figures = stats.snapshot()
    assert (figures["answered"], figures["by_status"], figures["faults"]) == (1, {"200": 1, "429": 1}, {"http_429": 1})


def test_calls_under_way_are_told_by_caller() -> None:
    """Who has none under way is not named."""
    stats = Stats()
    for caller in ("me", "you", "me"):
        stats.began("a", caller)
    stats.ended("you", cut_off=False)
    assert stats.snapshot()["in_flight_by_caller"] == {"me": 2}


def test_calls_hang_until_they_do_not() -> None:
    """However the hanging ends."""
    stats = Stats()
    with suppress(TimeoutError), stats.hanging():
        assert stats.snapshot()["hanging"] == 1
        raise TimeoutError
    assert stats.snapshot()["hanging"] == 0
