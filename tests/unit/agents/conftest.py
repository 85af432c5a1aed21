"""The unit tests of this folder run in virtual time."""

from tests.support.virtual_time import _no_tracebacks_on_the_console as _no_tracebacks_on_the_console
from tests.support.virtual_time import pytest_asyncio_loop_factories as pytest_asyncio_loop_factories
