"""Configures logging: JSON lines, or coloured lines on a terminal.

Drops every field that may hold a conversation's text or a secret, whichever library logs it. Of libraries only warnings
and errors are logged, each at most once a minute; at debug level, informational messages too.
"""

import logging
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, TextIO

import structlog
from aiokafka.errors import KafkaError

from schemas.errors import Fatal, InsightsError

#: Fields that hold conversation text or secrets. text_key is a hash and is kept.
_CONTENT_NAMES = frozenset(
    {"text", "texts", "message", "messages", "value", "body", "content", "metadata", "key", "headers"}
)
_SECRET_NAME = re.compile(
    r"(?<!^text)_key$|^(api)?key$|password|passwd|secret|(^|_)token$|authorization|cookie|(^|_)dsn$|database_url"
)
#: At debug level these log contents: aiokafka's producer each key and value, Faust each event.
_CONTENT_LOGGERS = ("aiokafka", "faust", "mode", "asyncpg", "aiohttp")
#: A library that retries logs the same error at each attempt.
REPEAT_AFTER_S = 60.0
#: Bounds the memory for messages that differ each time, as some hold an address or a number.
MAX_REMEMBERED_MESSAGES = 256
#: Exceptions whose messages come from us, the system or the broker. Other messages may quote the input.
_SAFE_MESSAGES = (InsightsError, OSError, KafkaError, ImportError, AttributeError, TypeError)

#: A failure that lasts is logged again after this long, then after twice as long, and so on up to the second number.
REMINDER_S, MAX_REMINDER_S = 10.0, 600.0

Event = MutableMapping[str, Any]

log = structlog.get_logger()


class LogThrottle:
    """Decides when to log a failure that lasts: at once, whenever its reason changes, and at a growing interval."""

    def __init__(self) -> None:
        self._reason: str | None = None
        self._due_at_s = 0.0
        self._interval_s = REMINDER_S

    def is_due(self, reason: str, now_s: float) -> bool:
        """Returns whether to log now, which counts as logged."""
        if reason == self._reason and now_s < self._due_at_s:
            return False
        self._interval_s = min(2 * self._interval_s, MAX_REMINDER_S) if reason == self._reason else REMINDER_S
        self._reason, self._due_at_s = reason, now_s + self._interval_s
        return True

    def reset(self) -> None:
        """Forgets the failure, which is over."""
        self._reason = None


def configure_logging(level: str = "info", stream: TextIO | None = None) -> None:
    """Routes structlog and the standard logging to `stream`, by default stderr. Safe to call again."""
    stream = stream or sys.stderr
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_PROCESSORS,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(stream))
    handler.addFilter(LibraryFilter(logging.INFO if level == "debug" else logging.WARNING))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _CONTENT_LOGGERS:
        logging.getLogger(name).setLevel(max(root.level, logging.INFO))
    logging.getLogger("aiokafka.producer.sender").addFilter(_is_unexpected)
    logging.captureWarnings(True)


@contextmanager
def service_log() -> Iterator[None]:
    """Configures logging for a service, and logs the error that ends it: once, and as JSON where the log is JSON.

    Exits with the code of a Fatal, and with 1 for a defect, whose types and places are logged, but not its message,
    which may quote a conversation. On a terminal a Fatal passes, to be printed as every command prints it.
    """
    configure_logging()
    try:
        yield
    except Fatal as error:
        if sys.stderr.isatty():
            raise
        log.error("failed", error=error.what, why=error.why.strip(), hint=error.hint)
        sys.exit(error.exit_code)
    except Exception as error:  # the edge of the process
        log.error("failed", exc_info=error)
        sys.exit(1)


class LibraryFilter(logging.Filter):
    """Passes our own events, and of libraries what is at least `level` and was not logged within REPEAT_AFTER_S.

    Faust's services log under the names of our subclasses, so the level of a logger cannot tell the two apart. Our
    events are dictionaries at this point.
    """

    def __init__(self, level: int, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._level = level
        self._clock = clock
        self._logged_at_s: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter."""
        if isinstance(record.msg, dict):
            return True
        return record.levelno >= self._level and not self._is_repeated((record.name, str(record.msg)))

    def _is_repeated(self, message: tuple[str, str]) -> bool:
        now_s = self._clock()
        logged_at_s = self._logged_at_s.get(message)
        if logged_at_s is not None and now_s - logged_at_s < REPEAT_AFTER_S:
            return True
        if len(self._logged_at_s) >= MAX_REMEMBERED_MESSAGES:
            self._logged_at_s.clear()
        self._logged_at_s[message] = now_s
        return False


def _is_unexpected(record: logging.LogRecord) -> bool:
    """Drops the error about missing producer IDs, which streams.kafka.producer handles."""
    return "InitProducerIdRequest" not in record.getMessage()


def _formatter(stream: TextIO) -> structlog.stdlib.ProcessorFormatter:
    renderer: structlog.types.Processor
    if stream.isatty():
        renderer = structlog.dev.ConsoleRenderer()
    else:
        renderer = structlog.processors.JSONRenderer(default=_type_name)
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=_PROCESSORS, processors=[remove_meta, renderer])


def _type_name(value: object) -> str:
    """Replaces a value that is not JSON by its type: its repr may hold conversation text."""
    return f"<{type(value).__name__}>"


def drop_contents(logger: object, method: str, event: Event) -> Event:
    """Drops fields whose names stand for contents or secrets, in nested dictionaries as well."""
    return {
        name: drop_contents(logger, method, value) if isinstance(value, dict) else value
        for name, value in event.items()
        if not _is_dropped(name)
    }


def _is_dropped(name: object) -> bool:
    lowered = str(name).lower()
    return lowered in _CONTENT_NAMES or _SECRET_NAME.search(lowered) is not None


def describe_exception(_: object, __: str, event: Event) -> Event:
    """Replaces `exc_info` by the error's types, safe messages and places in the code."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["exception"] = " <- ".join(map(_describe, _chain(error)))
        event["traceback"] = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
    return event


def _describe(error: BaseException) -> str:
    name = type(error).__name__
    if isinstance(error, KafkaError):  # whose text begins with its class
        return str(error)
    return f"{name}: {error}" if isinstance(error, _SAFE_MESSAGES) and str(error) else name


def _chain(error: BaseException | None) -> list[BaseException]:
    """Returns the error and its causes, outermost first."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


#: For our own events and for those of the standard library.
_PROCESSORS: list[structlog.types.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    drop_contents,
    describe_exception,
]
