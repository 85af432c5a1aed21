"""What reaches the log, and what never does."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from schemas.errors import Fatal
from streams.telemetry.log import REPEAT_AFTER_S, LibraryFilter, LogThrottle, configure_logging, service_log


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """A log that is not a terminal; the process's own configuration is restored afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging("info", stream)
    yield stream
    logging.captureWarnings(False)
    root.handlers[:], root.level = before[0], before[1]
    structlog.reset_defaults()


def _events(lines: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def test_an_event_is_one_line_of_json(lines: io.StringIO) -> None:
    """Line breaks and escapes in a field stay inside its JSON string."""
    structlog.get_logger("a").info("conversation_accepted", id="c\r\n\x1b[31m1\u2028")
    [event] = _events(lines)
    assert (event["event"], event["level"], event["id"]) == ("conversation_accepted", "info", "c\r\n\x1b[31m1\u2028")
    assert event["timestamp"].endswith("Z")


def test_the_standard_library_takes_the_same_way(lines: io.StringIO) -> None:
    """Faust's, aiokafka's and asyncio's lines are events too."""
    logging.getLogger("aiokafka.client").warning("Unable to connect to %s", "node 1")
    assert _events(lines)[0]["event"] == "Unable to connect to node 1"


@pytest.mark.parametrize(
    "name",
    [
        "text",
        "messages",
        "value",
        "body",
        "key",
        "metadata",
        "api_key",
        "xai_api_key",
        "password",
        "Authorization",
        "client_secret",
        "token",
        "DATABASE_URL",
    ],
)
def test_fields_that_hold_contents_or_secrets_are_dropped(lines: io.StringIO, name: str) -> None:
    """This holds for every logger and at any depth."""
    structlog.get_logger().info("e", **{name: "canary", "inner": {name: "canary", "id": 1}})
    assert "canary" not in lines.getvalue()
    assert _events(lines)[0]["inner"] == {"id": 1}


def test_fields_that_only_sound_alike_stay(lines: io.StringIO) -> None:
    """Hashes and counts are useful."""
    structlog.get_logger().info("e", text_key="ab", prompt_tokens=3, conversation_id="c")
    assert {"text_key", "prompt_tokens", "conversation_id"} <= _events(lines)[0].keys()


def test_errors_show_types_and_places_but_quote_nothing(lines: io.StringIO) -> None:
    """A foreign error's message may quote its input; ours never do."""
    try:
        try:
            raise ValueError("canary")
        except ValueError as error:
            raise Fatal("the answer cannot be read") from error
    except Fatal:
        structlog.get_logger().exception("failed")
        logging.getLogger("other").exception("failed too")
    assert "canary" not in lines.getvalue()
    for event in _events(lines):
        assert event["exception"] == "Fatal: the answer cannot be read <- ValueError"
        assert "test_log.py" in event["traceback"][0]


def test_debug_does_not_make_libraries_talk_about_contents(lines: io.StringIO) -> None:
    """aiokafka's producer logs each key and value at debug."""
    configure_logging("debug", lines)
    logging.getLogger("aiokafka.producer.producer").debug("Sending (key=%s value=%s)", "canary", "canary")
    structlog.get_logger().debug("ours")
    assert [event["event"] for event in _events(lines)] == ["ours"]


def test_values_that_are_not_json_show_their_type(lines: io.StringIO) -> None:
    """A repr may hold anything."""
    structlog.get_logger().info("e", thing=io.StringIO("canary"))
    assert _events(lines)[0]["thing"] == "<StringIO>"


def test_a_failure_that_lasts_is_logged_at_a_growing_interval() -> None:
    """At once, then after 10, 20, 40 s, up to 600 s. Another reason is logged at once, and so is any after a reset."""
    throttle = LogThrottle()
    due = [now_s for now_s in range(3_000) if throttle.is_due("unknown host", now_s)]
    assert due == [0, 10, 30, 70, 150, 310, 630, 1230, 1830, 2430]
    assert throttle.is_due("no answer", 3_000)
    assert not throttle.is_due("no answer", 3_001)
    throttle.reset()
    assert throttle.is_due("no answer", 3_002)


def test_libraries_log_warnings_only_and_none_of_them_again_within_a_minute() -> None:
    """Faust logs hundreds of lines at each start, also under the names of our subclasses; aiokafka logs at each
    attempt."""
    now_s = 0.0
    passes = LibraryFilter(logging.WARNING, clock=lambda: now_s).filter

    def record(name: str, level: int, message: object) -> logging.LogRecord:
        return logging.LogRecord(name, level, "", 0, message, ("node 1",), None)

    assert not passes(record("aiokafka.consumer.consumer", logging.INFO, "Subscribed to topic(s): %s"))
    assert not passes(record("streams.engine.app", logging.INFO, "[^-Recovery]: Resuming flow..."))
    assert passes(record("streams.engine.app", logging.INFO, {"event": "ours"}))
    failed = record("aiokafka", logging.ERROR, "Unable to connect to %s")
    assert [passes(failed), passes(failed)] == [True, False]
    assert passes(record("aiokafka", logging.ERROR, "Another failure of %s"))
    now_s = REPEAT_AFTER_S
    assert passes(failed)


def test_what_libraries_do_is_logged_at_debug_level(lines: io.StringIO) -> None:
    """It helps to debug Faust itself."""
    logging.getLogger("faust.app").info("Starting...")
    configure_logging("debug", lines)
    logging.getLogger("faust.app").info("Recovering...")
    assert [event["event"] for event in _events(lines)] == ["Recovering..."]


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (Fatal("no folder", "\n  it is locked", "wait", exit_code=2), 2, {"error": "no folder", "why": "it is locked"}),
        (ValueError("canary"), 1, {"exception": "ValueError"}),
    ],
)
def test_what_ends_a_service_is_one_event(
    monkeypatch: pytest.MonkeyPatch, lines: io.StringIO, error: Exception, code: int, shown: dict[str, str]
) -> None:
    """A log that programs read has no other lines, and the message of a defect is not in it."""
    monkeypatch.setattr(sys, "stderr", lines)
    with pytest.raises(SystemExit) as ended, service_log():
        raise error
    [event] = _events(lines)
    assert ended.value.code == code
    assert shown.items() <= event.items()
    assert "canary" not in lines.getvalue()
