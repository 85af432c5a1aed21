"""Event logs, set up once a process: JSON lines where a program reads them, coloured lines on a terminal.

The last line of defence for contents: what may hold a conversation's text or a secret is dropped here, whoever logs it.
"""

import logging
import re
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog
from aiokafka.errors import KafkaError

from schemas.errors import InsightsError

#: Fields that hold contents or secrets wherever they occur; text_key is a hash and stays.
DROPPED_NAMES = frozenset(
    {"text", "texts", "message", "messages", "value", "body", "content", "metadata", "key", "headers"}
)
_SECRET_NAME = re.compile(
    r"(?<!^text)_key$|^(api)?key$|password|passwd|secret|(^|_)token$|authorization|cookie|(^|_)dsn$|database_url"
)
#: At debug these log what they carry: aiokafka's producer each key and value, Faust each event.
_TALKATIVE = ("aiokafka", "faust", "mode", "asyncpg", "aiohttp")
#: Exceptions whose words come from us, the system or the broker; others may quote what they choked on.
_SAFE_TO_QUOTE = (InsightsError, OSError, KafkaError, ImportError, AttributeError, TypeError)

Event = MutableMapping[str, Any]


def configure_logging(level: str = "info", stream: TextIO | None = None) -> None:
    """Route structlog and the standard library's logging to `stream` (stderr), from `level` on. Safe to call again."""
    stream = stream or sys.stderr
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(stream))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    keep_contents_out(root.level)
    logging.getLogger("aiokafka.producer.sender").addFilter(_is_news)
    logging.captureWarnings(True)


def keep_contents_out(level: int = logging.INFO) -> None:
    """Holds libraries that log what they carry at `level`, and never below info, whoever sets up the logging."""
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(level, logging.INFO))


def _is_news(record: logging.LogRecord) -> bool:
    """A broker without producer ids is dealt with, and told, by streams.kafka.producer."""
    return "InitProducerIdRequest" not in record.getMessage()


def _shared() -> list[structlog.types.Processor]:
    """For our events and for those of the standard library alike."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        drop_contents,
        describe_exception,
    ]


def _formatter(stream: TextIO) -> structlog.stdlib.ProcessorFormatter:
    renderer: structlog.types.Processor
    if stream.isatty():
        renderer = structlog.dev.ConsoleRenderer()
    else:
        renderer = structlog.processors.JSONRenderer(default=_type_name)
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=_shared(), processors=[remove_meta, renderer])


def _type_name(value: object) -> str:
    """An object that is no JSON shows its type: its repr may hold anything."""
    return f"<{type(value).__name__}>"


def drop_contents(_: object, __: str, event: Event) -> Event:
    """Without the fields, at any depth of dictionaries, whose names stand for contents or secrets."""
    return _without_contents(event)


def _without_contents(fields: MutableMapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_contents(value) if isinstance(value, dict) else value
        for name, value in fields.items()
        if not _is_dropped(name)
    }


def _is_dropped(name: object) -> bool:
    lowered = str(name).lower()
    return lowered in DROPPED_NAMES or _SECRET_NAME.search(lowered) is not None


def describe_exception(_: object, __: str, event: Event) -> Event:
    """`exc_info` becomes `exception` (types, and the words of those that quote nothing) and `traceback` (places)."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["exception"] = " <- ".join(map(_described, _chain(error)))
        event["traceback"] = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
    return event


def _described(error: BaseException) -> str:
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, _SAFE_TO_QUOTE) and str(error) else name


def _chain(error: BaseException) -> list[BaseException]:
    """The error and its causes, outermost first."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain
