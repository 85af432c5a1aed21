"""Controls the faults of the stand-in for Grok over HTTP."""

import asyncio
import json
import random
import urllib.request
from collections.abc import Mapping
from typing import Any

from tests.chaos.oracle import HANG_MARKER, REFUSED_MARKER
from tests.support.waiting import became_true

_TIMEOUT_S = 30
_TROUBLE_S = (5.0, 10.0)
#: A fault lasts until that many calls have met it: meanwhile all workers may be down, or wait for a broker.
_SPOILED = 20
_SPOILED_WITHIN_S = 40.0
_REFUSED = {"text": REFUSED_MARKER, "kind": "violation_403"}
_HANGS = {"text": HANG_MARKER, "kind": "hang"}
#: Troubles by the name of their fault, as shares of calls.
TROUBLES: Mapping[str, Mapping[str, float]] = {
    "grok_errors": {"http_500": 0.1, "http_429": 0.1},
    "grok_resets": {"reset": 0.08, "reset_mid_body": 0.08},
    "grok_slow": {"slow_body": 0.3},
    "grok_bad": {"bad_schema": 0.05, "bad_json": 0.02},
}


class Grok:
    """Makes marked texts hang until `release`, besides any other fault."""

    def __init__(self, address: str, trouble_s: tuple[float, float] = _TROUBLE_S) -> None:
        self._address = address
        self._trouble_s = trouble_s
        self._holds = True

    def hold(self) -> None:
        """Makes marked texts hang; there are no other faults."""
        self._holds = True
        self._put({})

    def release(self) -> None:
        """Lets hanging calls be answered, and ends all faults."""
        self._holds = False
        self._put({})

    async def trouble(self, name: str, source: random.Random) -> int:
        """Applies a fault for some seconds, and until enough calls have met it; returns how many."""
        rates = TROUBLES[name]
        before = await asyncio.to_thread(self._spoiled, rates)

        def is_enough() -> bool:
            return self._spoiled(rates) - before >= _SPOILED

        await asyncio.to_thread(self._put, rates)
        try:
            await asyncio.sleep(source.uniform(*self._trouble_s))
            await became_true(lambda: asyncio.to_thread(is_enough), _SPOILED_WITHIN_S, 0.3)
            return await asyncio.to_thread(self._spoiled, rates) - before
        finally:
            await asyncio.to_thread(self._put, {})

    def _spoiled(self, rates: Mapping[str, float]) -> int:
        """Returns the calls that met one of these faults so far."""
        shown = self.stats()["faults"]
        return sum(shown.get(kind, 0) for kind in rates)

    def stats(self) -> dict[str, Any]:
        """The stand-in's own figures."""
        with urllib.request.urlopen(f"{self._address}/control/stats", timeout=_TIMEOUT_S) as response:  # noqa: S310
            return dict(json.load(response))

    def in_flight_by_caller(self) -> dict[str, int]:
        """Calls in flight by worker."""
        return dict(self.stats()["in_flight_by_caller"])

    def _put(self, rates: Mapping[str, float]) -> None:
        markers = [_REFUSED, _HANGS] if self._holds else [_REFUSED]
        plan = {"rates": rates, "markers": markers, "hang_s": 3600, "slow_body_s": 1}
        address = f"{self._address}/control/faults"
        request = urllib.request.Request(address, json.dumps(plan).encode(), method="PUT")  # noqa: S310  loopback
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):  # noqa: S310
            pass
