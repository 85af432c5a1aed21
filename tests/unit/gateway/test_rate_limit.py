"""The limiter against an exact sliding window, and its bounds."""

import tracemalloc
from collections import deque

import pytest
from hypothesis import given, strategies

from streams.gateway.rate_limit import STEP_S, WINDOW_S, RateLimiter, client_key


def test_refused_requests_are_not_counted() -> None:
    """Retrying while refused does not delay the next grant."""
    limiter = RateLimiter(2)
    assert [limiter.check("10.0.0.1", 100.0) for _ in range(2)] == [0.0, 0.0]
    wait_s = limiter.check("10.0.0.1", 100.0)
    assert all(limiter.check("10.0.0.1", 130.0) > 0 for _ in range(50))
    assert limiter.check("10.0.0.1", 100.0 + wait_s) == 0.0


def test_the_wait_is_exact() -> None:
    """A client that waits exactly that long is granted; a moment earlier it is refused."""
    limiter = RateLimiter(1)
    limiter.check("10.0.0.1", 7.1)
    wait_s = limiter.check("10.0.0.1", 20.0)
    assert WINDOW_S <= 20.0 + wait_s - 7.1 <= WINDOW_S + STEP_S
    assert limiter.check("10.0.0.1", 20.0 + wait_s - 0.01) > 0
    assert limiter.check("10.0.0.1", 20.0 + wait_s) == 0.0


@given(
    limit=strategies.integers(1, 8),
    gaps_s=strategies.lists(strategies.floats(0, 40, allow_nan=False) | strategies.just(0.0), max_size=80),
)
def test_grants_lie_between_exact_windows_of_60_and_60_25_seconds(limit: int, gaps_s: list[float]) -> None:
    """Never more than the limit in any 60 s; never refused when the last 60.25 s held fewer than the limit."""
    limiter = RateLimiter(limit)
    granted: deque[float] = deque()
    now_s = 0.0
    for gap_s in gaps_s:
        now_s += gap_s
        in_window = sum(time_s > now_s - WINDOW_S for time_s in granted)
        in_longer_window = sum(time_s > now_s - WINDOW_S - STEP_S for time_s in granted)
        if limiter.check("10.0.0.1", now_s) == 0.0:
            assert in_window < limit
            granted.append(now_s)
        else:
            assert in_longer_window >= limit


def test_clients_do_not_share_their_limit() -> None:
    """One address that floods leaves the others alone."""
    limiter = RateLimiter(1)
    limiter.check("10.0.0.1", 0.0)
    assert limiter.check("10.0.0.1", 0.0) > 0
    assert limiter.check("10.0.0.2", 0.0) == 0.0


def test_a_host_with_many_ipv6_addresses_is_one_client() -> None:
    """All of a /64 counts together, its neighbour does not; mapped IPv4 is IPv4; the zone index does not count."""
    assert client_key("2001:db8:0:1::1") == client_key("2001:db8:0:1:ffff::2")
    assert client_key("2001:db8:0:1::1") != client_key("2001:db8:0:2::1")
    assert client_key("::ffff:10.0.0.1") == client_key("10.0.0.1")
    assert client_key("fe80::1%eth0") == client_key("fe80::1")
    assert client_key("") == client_key("no address") == b""


def test_more_clients_than_fit_push_out_those_seen_longest_ago() -> None:
    """The number of clients is bounded; one that keeps coming is not forgotten."""
    limiter = RateLimiter(1, max_clients=100)
    limiter.check("10.0.0.1", 0.0)
    for number in range(1000):
        limiter.check(f"10.1.{number // 250}.{number % 250}", 1.0)
        assert limiter.check("10.0.0.1", 1.0) > 0
        assert limiter.clients <= 100


@pytest.mark.slow
def test_memory_is_bounded_with_many_addresses() -> None:
    """150,000 addresses cost no more than the 100,000 that are remembered: below 20 MiB."""
    limiter = RateLimiter(600)
    tracemalloc.start()
    try:
        for number in range(150_000):
            limiter.check(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", number / 5_000)
        assert tracemalloc.get_traced_memory()[1] < 20 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_memory_of_one_client_does_not_grow_with_the_limit() -> None:
    """A limit of a million a minute costs one client some kilobytes, not one entry a request."""
    limiter = RateLimiter(1_000_000)
    tracemalloc.start()
    try:
        for number in range(240_000):
            limiter.check("10.0.0.1", number / 2000)
        assert tracemalloc.get_traced_memory()[0] < 16 * 1024
    finally:
        tracemalloc.stop()


def test_forgetting_after_a_minute_without_requests_loses_nothing() -> None:
    """Generations change while a client is at its limit: it stays refused until its own window has passed."""
    limiter = RateLimiter(1)
    limiter.check("10.0.0.9", 0.0)
    limiter.check("10.0.0.1", 50.0)
    limiter.check("10.0.0.9", 61.0)
    assert limiter.check("10.0.0.1", 100.0) > 0
    assert limiter.check("10.0.0.1", 110.5) == 0.0
