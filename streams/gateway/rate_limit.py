"""Limits requests per client address by a sliding window in bounded memory. Pure.

A window counts grants in steps of 0.25 s. That takes at most 241 counters however high the limit is; exact times would
take one entry per request. The error is on the safe side: a grant counts for 60 to 60.25 s, so no window of 60 s ever
exceeds the limit, and a client waits at most 0.25 s too long. (A weighted pair of fixed windows is smaller, but grants
up to twice the limit to uneven traffic.)
"""

import math
import socket
from array import array
from typing import TypeAlias

WINDOW_S = 60.0
STEP_S = 0.25
MAX_CLIENTS = 100_000

#: The total of grants, then step, count, step, count, ... A flat array takes the least memory.
_Window: TypeAlias = "array[int]"


class RateLimiter:
    """Grants each client at most `limit_per_minute` requests in any 60 s.

    Refused requests do not count. Holds at most `max_clients` windows, in two generations that are swapped every 60 s
    or when the younger one is full. A client without a request for 60 s needs no window; with more clients than fit,
    those seen longest ago are dropped.
    """

    def __init__(self, limit_per_minute: int, *, max_clients: int = MAX_CLIENTS) -> None:
        self.limit_per_minute = limit_per_minute
        self._generation_size = max(1, max_clients // 2)
        self._young: dict[bytes, _Window] = {}
        self._old: dict[bytes, _Window] = {}
        self._swapped_at_s = -math.inf

    def check(self, ip: str, now_s: float) -> float:
        """Returns 0 if the request is granted, else the seconds until one would be.

        `now_s` is monotonic time: it must not be lower than in an earlier call.
        """
        client = client_key(ip)
        if now_s - self._swapped_at_s > WINDOW_S + STEP_S:
            self._swap(now_s)
        window = self._young.get(client)
        if window is None:
            window = self._old.pop(client, None) or array("I", (0,))
            if len(self._young) >= self._generation_size:
                self._swap(now_s)
            self._young[client] = window
        _expire(window, now_s)
        if window[0] >= self.limit_per_minute:
            return max(_expires_at_s(window[1]) - now_s, 0.001)
        _grant(window, now_s)
        return 0.0

    @property
    def clients(self) -> int:
        return len(self._young) + len(self._old)

    def _swap(self, now_s: float) -> None:
        self._old, self._young = self._young, {}
        self._swapped_at_s = now_s


def _grant(window: _Window, now_s: float) -> None:
    step = int(now_s / STEP_S)
    if len(window) > 1 and window[-2] == step:
        window[-1] += 1
    else:
        window.extend((step, 1))
    window[0] += 1


def _expire(window: _Window, now_s: float) -> None:
    end = 1
    while end < len(window) and _expires_at_s(window[end]) <= now_s:
        window[0] -= window[end + 1]
        end += 2
    del window[1:end]


def _expires_at_s(step: int) -> float:
    return (step + 1) * STEP_S + WINDOW_S


def client_key(ip: str) -> bytes:
    """Returns what identifies a client: the IPv4 address, or the /64 prefix of an IPv6 address.

    An IPv6 host usually controls its whole /64. IPv4-mapped addresses (::ffff:a.b.c.d) count as IPv4. All invalid
    addresses, such as the empty one of a Unix socket, count as one client.
    """
    try:
        if ":" not in ip:
            return socket.inet_pton(socket.AF_INET, ip)
        packed = socket.inet_pton(socket.AF_INET6, ip.partition("%")[0])
    except OSError:
        return b""
    return packed[12:] if packed.startswith(b"\0" * 10 + b"\xff\xff") else packed[:8]
