"""Crash points: the process may end after each step of a record. Each point wraps one method of the product."""

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

EXIT_CODE = 9

Count = Callable[[tuple[Any, ...], Any], int]


def _one(_arguments: tuple[Any, ...], _result: Any) -> int:
    return 1


def _confirmed(_arguments: tuple[Any, ...], deliveries: Any) -> int:
    return sum(error is None for error in deliveries)


def _in_changelog(arguments: tuple[Any, ...], deliveries: Any) -> int:
    is_changelog = str(arguments[1]).endswith("-answers-changelog")
    return sum(isinstance(delivery, int) for delivery in deliveries) if is_changelog else 0


def _entries(arguments: tuple[Any, ...], _result: Any) -> int:
    return len(arguments[2])


def _stored(_arguments: tuple[Any, ...], written: Any) -> int:
    return len(written.stored)


def _is_taken(_arguments: tuple[Any, ...], was_taken: Any) -> int:
    return int(was_taken)


@dataclass(frozen=True, slots=True)
class Point:
    """The step that `owner`.`name` takes; `count` says how many records took it when the call has returned."""

    what: str
    owner: str  # module, or module:class
    name: str
    count: Count = _one


POINTS = {
    "decode": Point("a record is decoded", "agents.analyst", "decode"),
    "rehome": Point(
        "copies are confirmed, their offsets are open", "streams.sinks.rehomed:RehomedSink", "send", _confirmed
    ),
    "call": Point("an answer has come and is not kept", "agents.grok.client:GrokAnalyser", "analyse"),
    "changelog": Point(
        "the changelog has the answers, the shard has not",
        "streams.kafka.producer:ConfirmedProducer",
        "send_all",
        _in_changelog,
    ),
    "shard": Point("the shard has the answers too", "streams.engine.answers_table:AnswersStore", "write", _entries),
    "row": Point("rows are committed", "streams.sinks.rows:RowSink", "write", _stored),
    "event": Point("events are confirmed", "streams.sinks.events:EventSink", "send", _confirmed),
    "dead_letter": Point("dead letters are confirmed", "streams.sinks.dead_letters:DeadLetterSink", "send", _confirmed),
    "finish": Point("an offset is finished", "streams.worker.offsets:Tracker", "finish"),
    "commit": Point("the broker has taken offsets", "streams.engine.app:WorkerApp", "commit_as", _is_taken),
}


def end_after(point: Point, nth: int) -> None:
    """From now on the process ends right after the call in which the `nth` record takes the step, without cleanup.

    Most steps take a batch of records at once, so the crash comes after the batch of the `nth` one.
    """
    module, _, class_name = point.owner.partition(":")
    owner = getattr(import_module(module), class_name) if class_name else import_module(module)
    original = getattr(owner, point.name)
    left = nth

    def returned(arguments: tuple[Any, ...], result: Any) -> Any:
        nonlocal left
        left -= point.count(arguments, result)
        if left <= 0:
            os._exit(EXIT_CODE)
        return result

    @functools.wraps(original)
    async def awaited(*arguments: Any, **options: Any) -> Any:
        return returned(arguments, await original(*arguments, **options))

    @functools.wraps(original)
    def called(*arguments: Any, **options: Any) -> Any:
        return returned(arguments, original(*arguments, **options))

    setattr(owner, point.name, awaited if inspect.iscoroutinefunction(original) else called)
