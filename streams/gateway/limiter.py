"""Requests a minute and client address, in a sliding window and in bounded memory. Pure: the time is an argument.

Times are kept in steps of 0.25 s: each client has a count for each step in which it was granted something. That costs
at most 241 counts however high the limit is, where a list of exact times would cost as many as the limit. The error is
on the safe side: a granted request counts for 60 to 60.25 s, so no window of 60 s ever holds more than the limit, and
a client may wait up to 0.25 s longer than with exact times. (A weighted pair of fixed windows is smaller still, but it
grants up to twice the limit to uneven traffic.)
"""

import math
import socket
from array import array
from typing import TypeAlias

WINDOW_S = 60.0
STEP_S = 0.25
MAX_CLIENTS = 100_000

#: Granted requests in all, then step, count, step, count, ... One flat array is the smallest that Python has.
_Window: TypeAlias = "array[int]"


class RateLimiter:
    """Grants each client at most `limit_per_minute` requests in any 60 s; refused ones are not counted.

    Remembers at most `max_clients`. Clients are kept in two generations, swapped every 60 s or when the younger one is
    full: after 60 s without a request nothing is left to remember, and with more clients than that within a minute the
    ones seen longest ago are forgotten first.
    """

    def __init__(self, limit_per_minute: int, *, max_clients: int = MAX_CLIENTS) -> None:
        self.limit_per_minute = limit_per_minute
        self._generation_size = max(1, max_clients // 2)
        self._young: dict[bytes, _Window] = {}
        self._old: dict[bytes, _Window] = {}
        self._swapped_at_s = -math.inf

    def check(self, ip: str, now_s: float) -> float:
        """Seconds until a request would be granted; 0 means that this one is granted and counted.

        `now_s` is any monotonic time, not before an earlier call's.
        """
        client = client_key(ip)
        if now_s - self._swapped_at_s > WINDOW_S + STEP_S:
            self._swap(now_s)
        window = self._young.get(client)
        if window is None:
            window = self._remember(client, now_s)
        return _check(window, self.limit_per_minute, now_s)

    @property
    def clients(self) -> int:
        """How many clients are remembered."""
        return len(self._young) + len(self._old)

    def _remember(self, client: bytes, now_s: float) -> _Window:
        window = self._old.pop(client, None) or array("I", (0,))
        if len(self._young) >= self._generation_size:
            self._swap(now_s)
        self._young[client] = window
        return window

    def _swap(self, now_s: float) -> None:
        self._old, self._young = self._young, {}
        self._swapped_at_s = now_s


def _check(window: _Window, limit: int, now_s: float) -> float:
    _expire(window, now_s)
    if window[0] >= limit:
        return max(_expires_at_s(window[1]) - now_s, 0.001)
    step = int(now_s / STEP_S)
    if len(window) > 1 and window[-2] == step:
        window[-1] += 1
    else:
        window.extend((step, 1))
    window[0] += 1
    return 0.0


def _expire(window: _Window, now_s: float) -> None:
    end = 1
    while end < len(window) and _expires_at_s(window[end]) <= now_s:
        window[0] -= window[end + 1]
        end += 2
    del window[1:end]


def _expires_at_s(step: int) -> float:
    return (step + 1) * STEP_S + WINDOW_S


def client_key(ip: str) -> bytes:
    """What counts as one client: an IPv4 address, or the /64 of an IPv6 one, since a host owns all of its /64.

    IPv4 in IPv6's clothes (::ffff:a.b.c.d) is IPv4. Anything else (a Unix socket's "") is one client together.
    """
    try:
        if ":" not in ip:
            return socket.inet_pton(socket.AF_INET, ip)
        packed = socket.inet_pton(socket.AF_INET6, ip.partition("%")[0])
    except OSError:
        return b""
    return packed[12:] if packed.startswith(b"\0" * 10 + b"\xff\xff") else packed[:8]
