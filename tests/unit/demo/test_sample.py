"""The sample of the demo, and the script that makes it."""

import gzip
import importlib.util
import json
import re
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agents.canonical_text import canonical_text
from agents.prefilter.low_value import low_value
from schemas.conversation import Conversation, decode_conversation
from schemas.errors import Fatal
from streams.demo import sample
from streams.demo.sample import read_sample
from streams.resources import infra

FOLDER = infra("sample")


def conversations() -> list[Conversation]:
    lines = (FOLDER / "sample.jsonl").read_bytes().splitlines()
    return [decode_conversation(line, require_id=True) for line in lines]


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_sample", FOLDER / "make_sample.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_source(folder: Path, name: str, records: list[dict[str, Any]]) -> None:
    with gzip.open(folder / name, "wt") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    talk = [{"role": "user", "text": "Hello", "ts": "2020-05-25T21:56:46Z"}, {"role": "agent", "text": "Hi"}]
    ids = [f"star:{number}" for number in range(400)]
    write_source(
        tmp_path, "conversations-support.jsonl.gz", [{"id": i, "source": "star", "messages": talk} for i in ids]
    )
    post = {"id": "vader-tweets:1", "source": "vader-tweets", "text": "so good", "label": "positive", "dup_count": 3}
    write_source(tmp_path, "posts-sentiment.jsonl.gz", [post])
    return tmp_path


def test_the_sample_is_small() -> None:
    """It travels with every installation: at most 1 MiB."""
    assert (FOLDER / "sample.jsonl").stat().st_size <= 1024 * 1024


def test_every_record_is_a_conversation_with_its_own_id() -> None:
    """The gateway would accept each line, and each ends as its own row."""
    ids = [conversation.id for conversation in conversations()]
    assert None not in ids
    assert len(ids) == len(set(ids)) >= 600


def test_the_sample_has_work_for_cache_and_prefilter() -> None:
    """A fifth to a third of all are repeats; some are of too little value for a call, most are not."""
    texts = [canonical_text(conversation) for conversation in conversations()]
    repeats = sum(count - 1 for text, count in Counter(texts).items() if low_value(text) is None)
    assert 0.15 < repeats / len(texts) < 0.33
    assert 40 <= sum(low_value(text) is not None for text in texts) < len(texts) / 5


def test_a_repeat_says_the_same_as_its_first() -> None:
    """`...-again-1` is the conversation `...` under another id."""
    by_id = {str(conversation.id): conversation for conversation in conversations()}
    again = [identifier for identifier in by_id if "-again-" in identifier]
    assert again
    for identifier in again:
        first = by_id[identifier.partition("-again-")[0]]
        assert canonical_text(by_id[identifier]) == canonical_text(first)


def test_a_part_of_the_sample_has_repeats_too() -> None:
    """Whoever takes the first hundred sees the cache at work."""
    texts = [canonical_text(conversation) for conversation in conversations()[:100]]
    assert len(texts) - len(set(texts)) >= 5


def test_every_source_is_named_with_a_licence_that_is_there() -> None:
    """Each source has a line in SOURCES.md, under MIT or Apache-2.0, with the licence's text beside it."""
    lines = (FOLDER / "SOURCES.md").read_text().splitlines()
    named = {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}
    for source in {str(conversation.source) for conversation in conversations()}:
        licence = re.search(r"(?:MIT|Apache-2\.0) \(`([\w.-]+)`\)", named[source])
        assert licence is not None
        assert (FOLDER / "LICENSES" / licence[1]).stat().st_size > 500


def test_the_counts_in_sources_are_those_of_the_sample() -> None:
    """The table says how many conversations and posts of each source there are, repeats and turns included."""
    counted = Counter(str(conversation.source) for conversation in conversations())
    for line in (FOLDER / "SOURCES.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 4 and cells[1] in counted:
            assert sum(map(int, re.findall(r"\d+", cells[4]))) == counted[cells[1]]


def test_the_script_gives_the_same_for_the_same(source: Path) -> None:
    """No clock and no chance is in it."""
    made = script().sample(source)
    assert made == script().sample(source)
    assert len({record["id"] for record in made}) == len(made)


def test_the_script_repeats_what_the_source_repeats(source: Path) -> None:
    """A post that stood there three times has at least two repeats; labels do not come along."""
    posts = [record for record in script().sample(source) if record["source"] == "vader-tweets"]
    assert {record["id"] for record in posts} >= {"vader-tweets:1", "vader-tweets:1-again-1", "vader-tweets:1-again-2"}
    assert all(record.keys() == {"id", "source", "text"} for record in posts)


def test_the_script_makes_short_turns_conversations(source: Path) -> None:
    """They come from conversations that are not in the sample themselves."""
    made = {record["id"]: record for record in script().sample(source)}
    turns = [identifier for identifier in made if identifier.endswith((":opening", ":closing"))]
    assert len(turns) == 80
    assert all(made[turn]["text"] == "Hello" and turn.rpartition(":")[0] not in made for turn in turns)


def test_a_limit_takes_the_first() -> None:
    """`--limit` gives the same ones each time."""
    assert [request.id for request in read_sample(3)] == [c.id for c in conversations()[:3]]
    assert len(read_sample()) == len(conversations())


def test_a_damaged_sample_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is told, not a traceback."""
    (tmp_path / "sample.jsonl").write_text('{"id": "a", "text": "good"}\n{"id": \n')
    monkeypatch.setattr(sample, "infra", lambda _: tmp_path)
    with pytest.raises(Fatal, match=r"line 2 of sample\.jsonl"):
        read_sample()
