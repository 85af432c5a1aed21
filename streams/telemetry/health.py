"""Named checks of dependencies, each with a deadline; what is found is kept for a moment.

Liveness never asks here: a process is not to be restarted because something else is down.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

import structlog

from schemas.errors import InsightsError

OK = "ok"
#: With FRESH_S this is how late a report can be, and a dependency that dies, freezes or comes back is to show within
#: 3 s: what was found just before is told for FRESH_S, and the next question may find nobody for CHECK_TIMEOUT_S.
CHECK_TIMEOUT_S = 1.5
#: Probes by many clients become at most two questions a second to each dependency.
FRESH_S = 0.5

Check = Callable[[], Awaitable[None]]
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Report:
    """Each check's name with "ok" or a short reason that is fit to be shown to anyone."""

    checks: Mapping[str, str]

    @property
    def is_ok(self) -> bool:
        return not self.failing

    @property
    def failing(self) -> list[str]:
        return [name for name, state in self.checks.items() if state != OK]


class Health:
    """Runs the checks. A check passes by returning and fails by raising; only our own errors are quoted."""

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        timeout_s: float = CHECK_TIMEOUT_S,
        fresh_s: float = FRESH_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checks = {name: _Watched(name, check, timeout_s, fresh_s, clock) for name, check in checks.items()}

    async def report(self, names: Collection[str] | None = None) -> Report:
        """The findings of the named checks, or of all, at most `fresh_s` seconds old; within `timeout_s` seconds.

        Never raises for a failing check. One that others wait for is not waited for by those who did not name it.
        """
        wanted = self._checks if names is None else {name: self._checks[name] for name in names}
        states = await asyncio.gather(*(watched.state() for watched in wanted.values()))
        return Report(dict(zip(wanted, states, strict=True)))


class _Watched:
    """One check with its latest finding; whoever asks while it is being asked waits for the same answer."""

    def __init__(self, name: str, check: Check, timeout_s: float, fresh_s: float, clock: Callable[[], float]) -> None:
        self._name = name
        self._check = check
        self._timeout_s = timeout_s
        self._fresh_s = fresh_s
        self._clock = clock
        self._state = ""
        self._found_at_s: float | None = None
        self._asking: asyncio.Task[None] | None = None
        self._given_up: set[asyncio.Task[str]] = set()

    async def state(self) -> str:
        if self._found_at_s is None or self._clock() - self._found_at_s >= self._fresh_s:
            if self._asking is None:
                self._asking = asyncio.create_task(self._ask(), name=f"health-{self._name}")
            await asyncio.shield(self._asking)
        return self._state

    async def _ask(self) -> None:
        """A check that is given up is cancelled but not waited for: its end may take what hangs."""
        answer = asyncio.create_task(_answer(self._check))
        try:
            await asyncio.wait({answer}, timeout=self._timeout_s)
            if answer.done():
                self._keep("the check was cancelled" if answer.cancelled() else answer.result())
            else:
                answer.cancel()
                self._given_up.add(answer)
                answer.add_done_callback(self._given_up.discard)
                self._keep(f"no answer within {self._timeout_s:g} s")
        finally:
            self._asking = None

    def _keep(self, state: str) -> None:
        if state != (self._state or OK):
            _log.info("health_changed", check=self._name, state=state)
        self._state = state
        self._found_at_s = self._clock()


async def _answer(check: Check) -> str:
    try:
        await check()
    except InsightsError as error:
        return str(error)
    except Exception as error:  # a check must never take the probe down; foreign messages may hold secrets
        return type(error).__name__
    return OK
