"""An event loop whose clock jumps to the next timer as soon as nothing else is left to do.

Back-offs, deadlines and drains then take no time, and their lengths can be asserted exactly. After `sleep(60)` a test
sees everything that can happen within a minute, and a test that would wait for nothing fails at once. Only for code
without sockets, threads and processes.
"""

import asyncio
import selectors
from collections.abc import Callable, Iterator

import pytest
from structlog.testing import capture_logs


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The hook of pytest-asyncio: a conftest that imports it gives the loop to all tests of its folder."""
    return {"virtual time": VirtualTimeLoop}


@pytest.fixture(autouse=True)
def _no_tracebacks_on_the_console() -> Iterator[None]:
    """structlog's default renders each with all local variables, which takes a second of real time."""
    with capture_logs():
        yield


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Begins at 0 s."""

    def __init__(self) -> None:
        self._selector_that_jumps = _JumpingSelector()
        super().__init__(self._selector_that_jumps)

    def time(self) -> float:
        """Seconds of virtual time."""
        return self._selector_that_jumps.now_s


class _JumpingSelector(selectors.SelectSelector):
    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if timeout is None and not ready:
            raise RuntimeError("every task waits, and no timer will wake one")
        if not ready:
            self.now_s += max(timeout or 0.0, 0.0)
        return ready
