"""How `up` shows the log of all processes on a terminal."""

import json

from streams.commands.up import terminal_line


def shown(name: str, **event: object) -> str | None:
    line = terminal_line(f"{name} | {json.dumps(event)}")
    return None if line is None else line.plain


def test_our_events_are_condensed() -> None:
    """Process, time, event and its fields; the rest is in the file."""
    line = shown("worker-1", event="worker_stopping", level="info", logger="x", timestamp="2026-11-24T13:49:11Z", n=1)
    assert line == "worker-1  | 13:49:11 worker_stopping n=1"


def test_what_every_start_says_is_left_out_unless_it_warns() -> None:
    """The stack reports what is ready; the file has the rest."""
    assert shown("gateway", event="gateway_listening", level="info", port=8080) is None
    assert shown("worker-1", event="Heartbeat failed", level="warning") == "worker-1  |  Heartbeat failed"
    for line in ("tansu | ready in 13ms", "migrate | Applied: 0001_insights.sql", "topics | insights\t8 partitions"):
        assert terminal_line(line) is None


def test_a_hint_is_shown_whole_and_other_fields_are_cut() -> None:
    """What to do is often at its end."""
    text = "x" * 300
    assert (
        shown("worker-1", event="worker_halted", level="error", hint=text) == f"worker-1  |  worker_halted hint={text}"
    )
    assert shown("worker-1", event="worker_halted", why=text) == f"worker-1  |  worker_halted why={text[:200]}..."


def test_other_output_stays_as_it_is() -> None:
    """Text that is not an event, JSON or not, is shown; routine messages of Postgres and Kafka are not."""
    for text in ("Segmentation fault", "[1, 2]", '{"a": 1}', "2026-01-01 UTC [1] ERROR:  no such table"):
        line = terminal_line(f"postgres | {text}")
        assert line is not None
        assert line.plain == f"postgres  | {text}"
    assert terminal_line("postgres | 2026-01-01 UTC [1] LOG:  shutting down") is None
    assert terminal_line("postgres | 2026-01-01 UTC [1] FATAL:  the database system is starting up") is None
    assert terminal_line("kafka | [2026-01-01 00:00:00,000] WARN Auto topic creation failed (kafka.server)") is None
    assert terminal_line("kafka | [2026-01-01 00:00:00,000] ERROR the disk is full (kafka.log)") is not None
    assert terminal_line("kafka-format | Formatting metadata directory") is None
    assert terminal_line("initdb | creating subdirectories ... ok") is None
