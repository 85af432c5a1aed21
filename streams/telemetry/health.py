"""Health checks of dependencies, each with a timeout; results are cached for a moment.

Readiness uses them, liveness must not: restarting a process does not repair its dependencies.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

import structlog

from schemas.errors import InsightsError

OK = "ok"
#: A change must show within 3 s: a cached result is served for FRESH_S, and the next check may take CHECK_TIMEOUT_S.
CHECK_TIMEOUT_S = 1.5
#: However many clients probe, each dependency gets at most two checks a second.
FRESH_S = 0.5

Check = Callable[[], Awaitable[None]]
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class HealthReport:
    """Maps the name of each check to "ok" or to a short reason without secrets."""

    checks: Mapping[str, str]

    @property
    def is_ok(self) -> bool:
        """Whether every check passed."""
        return not self.failing

    @property
    def failing(self) -> list[str]:
        """The names of the failed checks."""
        return [name for name, state in self.checks.items() if state != OK]


class Health:
    """Runs checks, which pass by returning and fail by raising.

    Reports the message of our own errors only.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        timeout_s: float = CHECK_TIMEOUT_S,
        fresh_s: float = FRESH_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checks = {name: _CachedCheck(name, check, timeout_s, fresh_s, clock) for name, check in checks.items()}

    async def report(self, names: Collection[str] | None = None) -> HealthReport:
        """Returns the results of the named checks, or of all, within `timeout_s` seconds.

        Results are at most `fresh_s` seconds old. Never raises for a failed check, and waits for the named ones only.
        """
        wanted = self._checks if names is None else {name: self._checks[name] for name in names}
        states = await asyncio.gather(*(check.state() for check in wanted.values()))
        return HealthReport(dict(zip(wanted, states, strict=True)))


class _CachedCheck:
    """One check and its last result. Callers that come while it runs wait for the same result."""

    def __init__(self, name: str, check: Check, timeout_s: float, fresh_s: float, clock: Callable[[], float]) -> None:
        self._name = name
        self._check = check
        self._timeout_s = timeout_s
        self._fresh_s = fresh_s
        self._clock = clock
        self._state = ""
        self._checked_at_s: float | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._abandoned: set[asyncio.Task[str]] = set()

    async def state(self) -> str:
        if self._checked_at_s is None or self._clock() - self._checked_at_s >= self._fresh_s:
            if self._refreshing is None:
                self._refreshing = asyncio.create_task(self._refresh(), name=f"health-{self._name}")
            await asyncio.shield(self._refreshing)
        return self._state

    async def _refresh(self) -> None:
        """Cancels a check that timed out without waiting for it: its cancellation may hang as well."""
        running = asyncio.create_task(_run(self._check))
        try:
            await asyncio.wait({running}, timeout=self._timeout_s)
            if running.done():
                self._store("the check was cancelled" if running.cancelled() else running.result())
            else:
                running.cancel()
                self._abandoned.add(running)
                running.add_done_callback(self._abandoned.discard)
                self._store(f"no answer within {self._timeout_s:g} s")
        finally:
            self._refreshing = None

    def _store(self, state: str) -> None:
        if state != (self._state or OK):
            log.info("health_changed", check=self._name, state=state)
        self._state = state
        self._checked_at_s = self._clock()


async def _run(check: Check) -> str:
    try:
        await check()
    except InsightsError as error:
        return str(error)
    except Exception as error:  # a check must not break the probe; messages of other libraries may hold secrets
        return type(error).__name__
    return OK
