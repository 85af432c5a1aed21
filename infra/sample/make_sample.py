"""Makes sample.jsonl, the conversations of `grok-insights demo`, from published data sets. The same input gives the
same bytes.

    python infra/sample/make_sample.py FOLDER

FOLDER holds conversations-support.jsonl.gz, posts-sentiment.jsonl.gz and LICENSES/. See SOURCES.md.
"""

import argparse
import gzip
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]

#: How many conversations or posts of each source; only sources under MIT or Apache-2.0.
TAKEN = {"star": 300, "abcd-sample": 4, "vader-tweets": 200, "vader-amazon": 150}
LICENCES = ("star-MIT.txt", "abcd-MIT.txt", "vader-MIT.txt")
SHORT_TURNS = 80
MAX_SHORT_CHARS = 20
REPEATED_SHARE = 0.25
#: How far behind the original a repeat may be, as a share of the whole sample.
REPEATED_WITHIN = 0.1
MAX_SAMPLE_BYTES = 1024 * 1024
_AGAIN = "-again-"


def main() -> None:
    parser = argparse.ArgumentParser(description="Make sample.jsonl beside this file.")
    parser.add_argument("folder", type=Path, help="where the source files are")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write")
    arguments = parser.parse_args()
    lines = [json.dumps(record, ensure_ascii=False, separators=(",", ":")) for record in sample(arguments.folder)]
    data = "".join(f"{line}\n" for line in lines).encode()
    if len(data) > MAX_SAMPLE_BYTES:
        raise SystemExit(f"the sample has {len(data)} bytes, {MAX_SAMPLE_BYTES} are allowed: take fewer")
    (arguments.out / "sample.jsonl").write_bytes(data)
    (arguments.out / "LICENSES").mkdir(exist_ok=True)
    for name in LICENCES:
        shutil.copyfile(arguments.folder / "LICENSES" / name, arguments.out / "LICENSES" / name)


def sample(folder: Path) -> list[Record]:
    """All records of the sample, in an order by hash in which repeats soon follow their original."""
    chosen, others = _choose(folder)
    whole = [_request(record) for record in chosen]
    repeated = [again for record, request in zip(chosen, whole, strict=True) for again in _repeats(record, request)]
    return sorted([*whole, *repeated, *_short_turns(others)], key=_place)


def _choose(folder: Path) -> tuple[list[Record], list[Record]]:
    """The chosen records of all sources, and the conversations of `star` that were not chosen."""
    records = [*_read(folder / "conversations-support.jsonl.gz"), *_read(folder / "posts-sentiment.jsonl.gz")]
    chosen: list[Record] = []
    for source, count in TAKEN.items():
        of_source = [record for record in records if record["source"] == source]
        chosen += sorted(of_source, key=lambda record: _draw("choose", record["id"]))[:count]
    ids = {record["id"] for record in chosen}
    return chosen, [record for record in records if record["source"] == "star" and record["id"] not in ids]


def _request(record: Record) -> Record:
    """The body of a POST: id, source, and text or messages; labels and other fields are left out."""
    if "text" in record:
        return {"id": record["id"], "source": record["source"], "text": record["text"]}
    return {"id": record["id"], "source": record["source"], "messages": [_message(m) for m in record["messages"]]}


def _message(message: Record) -> Record:
    at = {"at": message["ts"]} if "ts" in message else {}
    return {"role": message["role"], "text": message["text"], **at}


def _repeats(record: Record, request: Record) -> Iterator[Record]:
    """Repeats a text as often as the source did, and once more for a share of all texts."""
    times = record.get("dup_count", 1) - 1 + (_draw("repeat", record["id"]) < REPEATED_SHARE)
    for number in range(1, times + 1):
        yield {**request, "id": f"{request['id']}{_AGAIN}{number}"}


def _place(record: Record) -> tuple[float, str]:
    first, again, _ = record["id"].partition(_AGAIN)
    behind = REPEATED_WITHIN * _draw("behind", record["id"]) if again else 0.0
    return _draw("order", first) + behind, record["id"]


def _short_turns(conversations: list[Record]) -> list[Record]:
    """First and last user turns of few characters, each a conversation of its own: greetings, thanks, farewells."""
    turns = []
    for record in conversations:
        said = [message["text"] for message in record["messages"] if message["role"] == "user"]
        for place, text in (("opening", said[0]), ("closing", said[-1])):
            if len(text) <= MAX_SHORT_CHARS:
                turns.append({"id": f"{record['id']}:{place}", "source": record["source"], "text": text})
    return sorted(turns, key=lambda record: _draw("short", record["id"]))[:SHORT_TURNS]


def _read(path: Path) -> list[Record]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _draw(purpose: str, record_id: str) -> float:
    """A number from 0 up to 1 that depends only on the arguments."""
    return int(hashlib.sha256(f"{purpose}:{record_id}".encode()).hexdigest()[:12], 16) / 2**48


if __name__ == "__main__":
    main()
