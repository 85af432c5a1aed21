"""The life of one worker process: `grok-insights worker` itself, under a run's own names, with one step wrapped."""

import os
import random
from enum import StrEnum
from pathlib import Path
from typing import Any

from tests.crash.names import Names
from tests.crash.points import POINTS, end_after


def live(order: dict[str, Any]) -> None:
    """Does not return: ends the process. Nothing of ours may be imported before the names are set."""
    _into_log(Path(order["log"]))
    os.chdir(order["folder"])
    os.environ.update(order["settings"])
    random.seed()  # a fork inherits the state: back-offs and ids of all lives would be the same
    _rename(Names(order["run"]))
    if order["point"] is not None:
        end_after(POINTS[order["point"]], order["nth"])
    from streams.commands.worker import worker

    worker()
    os._exit(0)


def _rename(names: Names) -> None:
    import schemas.topics as topics

    renamed = StrEnum("Topic", {topic.name: names.topic(topic) for topic in topics.Topic})  # type: ignore[misc]
    vars(topics).update(
        Topic=renamed,
        INPUT_TOPICS=tuple(renamed[topic.name] for topic in topics.INPUT_TOPICS),
        CONSUMER_GROUP=names.group,
        ANSWERS_CHANGELOG=names.changelog,
    )


def _into_log(path: Path) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
