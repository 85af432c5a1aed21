"""Makes texts.txt.gz, the texts of `make bench`, from published data sets. The same input gives the same bytes.

    python -m tests.bench.data.make_texts FOLDER

FOLDER holds conversations-support.jsonl.gz, posts-sentiment.jsonl.gz and LICENSES/. See SOURCES.md.
"""

import argparse
import gzip
import hashlib
import json
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from agents.prefilter import low_value

#: Only sources whose licence lets the texts be passed on with attribution.
_SOURCES = ("irc-disentanglement", "star", "abcd-sample", "vader-tweets", "vader-amazon")
_LICENCE = "irc-disentanglement-CC-BY-4.0.txt"
_MIN_CHARS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description="Make texts.txt.gz beside this file.")
    parser.add_argument("folder", type=Path, help="where the source files are")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write")
    arguments = parser.parse_args()
    distinct = {text.casefold(): text for text in map(_canonical, _texts(arguments.folder)) if _is_usable(text)}
    ordered = sorted(distinct.values(), key=lambda text: hashlib.sha256(text.encode()).digest())
    data = "".join(f"{text}\n" for text in ordered).encode()
    (arguments.out / "texts.txt.gz").write_bytes(gzip.compress(data, 9, mtime=0))
    (arguments.out / "LICENSES").mkdir(exist_ok=True)
    shutil.copyfile(arguments.folder / "LICENSES" / _LICENCE, arguments.out / "LICENSES" / _LICENCE)
    print(f"{len(ordered)} texts")


def _texts(folder: Path) -> Iterator[str]:
    """Posts, and messages that a person typed: the agents of `star` picked theirs from templates."""
    for name in ("conversations-support.jsonl.gz", "posts-sentiment.jsonl.gz"):
        with gzip.open(folder / name, "rt", encoding="utf-8") as file:
            for record in map(json.loads, file):
                if record["source"] in _SOURCES:
                    messages = record.get("messages", ())
                    said = [m["text"] for m in messages if record["source"] != "star" or m["role"] == "user"]
                    yield from [record["text"]] if "text" in record else said


def _canonical(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _is_usable(text: str) -> bool:
    """Each text must cost a call, so that calls = distinct texts can be checked."""
    return len(text) >= _MIN_CHARS and low_value(text) is None


if __name__ == "__main__":
    main()
