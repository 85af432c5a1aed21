"""Named checks of dependencies, run together, each with a deadline; the answer is kept for a moment.

Liveness never asks here: a process is not to be restarted because something else is down.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

import structlog

from schemas.errors import InsightsError

OK = "ok"
CHECK_TIMEOUT_S = 2.0
#: Probes by many clients become at most one question a second to each dependency.
FRESH_S = 1.0

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

    def only(self, names: Iterable[str]) -> "Report":
        """The same findings for some of the checks."""
        return Report({name: self.checks[name] for name in names})


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
        self._checks = dict(checks)
        self._timeout_s = timeout_s
        self._fresh_s = fresh_s
        self._clock = clock
        self._lock = asyncio.Lock()
        self._report: Report | None = None
        self._taken_at_s = 0.0

    async def report(self) -> Report:
        """All findings, at most `fresh_s` seconds old. Never raises for a failing check."""
        async with self._lock:
            if self._report is None or self._clock() - self._taken_at_s >= self._fresh_s:
                states = await asyncio.gather(*map(self._state, self._checks.values()))
                self._keep(Report(dict(zip(self._checks, states, strict=True))))
            assert self._report is not None
            return self._report

    def _keep(self, report: Report) -> None:
        before = self._report.failing if self._report else []
        if report.failing != before:
            _log.info("health_changed", failing=report.failing, checks=dict(report.checks))
        self._report = report
        self._taken_at_s = self._clock()

    async def _state(self, check: Check) -> str:
        try:
            async with asyncio.timeout(self._timeout_s):
                await check()
        except TimeoutError:
            return f"no answer within {self._timeout_s:g} s"
        except InsightsError as error:
            return str(error)
        except Exception as error:  # a check must never take the probe down; foreign messages may hold secrets
            return type(error).__name__
        return OK
