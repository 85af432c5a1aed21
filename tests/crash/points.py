"""Where the process may end: after each step of a record. Each point wraps one method of the product and no more."""

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

EXIT_CODE = 9

Occurs = Callable[[tuple[Any, ...], Any], bool]


def _always(_arguments: tuple[Any, ...], _result: Any) -> bool:
    return True


def _is_changelog(arguments: tuple[Any, ...], _result: Any) -> bool:
    return str(arguments[1]).endswith("-answers-changelog")


def _is_taken(_arguments: tuple[Any, ...], result: Any) -> bool:
    return bool(result)


@dataclass(frozen=True, slots=True)
class Point:
    """The step that `owner`.`name` takes; it has occurred when the call returned and `occurs` says so."""

    what: str
    owner: str  # module, or module:class
    name: str
    occurs: Occurs = _always


POINTS = {
    "decode": Point("a record is opened", "streams.pipeline.steps", "open_envelope"),
    "rehome": Point("a record is sent home, its slot is open", "streams.pipeline.home:Rehoming", "send_home"),
    "call": Point("an answer has come and is not kept", "agents.grok.client:GrokAnalyser", "analyse"),
    "changelog": Point(
        "the changelog has the answer, the shard has not",
        "streams.sinks.producer:ConfirmedProducer",
        "send",
        _is_changelog,
    ),
    "shard": Point("the shard has the answer too", "streams.pipeline.answers_table:AnswersStore", "write"),
    "row": Point("the row is committed", "streams.sinks.postgres:PostgresSink", "write"),
    "result": Point("the event is confirmed", "streams.sinks.results:ResultsSink", "send"),
    "letter": Point("the dead letter is confirmed", "streams.sinks.dead_letters:DeadLetterSink", "send"),
    "ack": Point("the slot is finished", "streams.pipeline.offsets:Tracker", "finish"),
    "commit": Point(
        "the broker has taken offsets",
        "streams.pipeline.faust_consumer:OwnOffsetsConsumer",
        "commit_offsets",
        _is_taken,
    ),
}


def end_after(point: Point, nth: int) -> None:
    """From now on the process ends right after the point's `nth` occurrence, with nothing put in order."""
    module, _, class_name = point.owner.partition(":")
    owner = getattr(import_module(module), class_name) if class_name else import_module(module)
    original = getattr(owner, point.name)
    left = nth

    def returned(arguments: tuple[Any, ...], result: Any) -> Any:
        nonlocal left
        left -= point.occurs(arguments, result)
        if left == 0:
            os._exit(EXIT_CODE)
        return result

    @functools.wraps(original)
    async def awaited(*arguments: Any, **options: Any) -> Any:
        return returned(arguments, await original(*arguments, **options))

    @functools.wraps(original)
    def called(*arguments: Any, **options: Any) -> Any:
        return returned(arguments, original(*arguments, **options))

    setattr(owner, point.name, awaited if inspect.iscoroutinefunction(original) else called)
