"""The unit tests of this folder run in virtual time, and no test ends the process that runs them all."""

import pytest

from streams.worker import lifecycle
from tests.support.virtual_time import _no_tracebacks_on_the_console as _no_tracebacks_on_the_console
from tests.support.virtual_time import pytest_asyncio_loop_factories as pytest_asyncio_loop_factories


@pytest.fixture(autouse=True)
def _no_last_resort(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disables the last resort, which would end pytest after 9.5 s of real time."""
    monkeypatch.setattr(lifecycle, "end_process_within", lambda _: None)
