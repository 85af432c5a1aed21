"""The ban list of words: private jargon and literary words, which make the code hard to read.

A pattern matches whole words, in prose and in names; a space in it matches an underscore too. Only words that are wrong
in nearly every context belong here; all else is up to reviewers.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Word, and what to write instead.
BANNED = {
    r"(?<!user )(?<!\")nobody|(some|any)body|whoever": "name who it is: a client, an operator, no worker, no caller",
    r"told": "say what happens: is logged, is reported, is named, receives",
    r"(tells?|heard|hears?) of": "reports, learns of",
    r"stands": "is, is stored, represents",
    r"(?<!there )is no(?! (longer|more|less))": "is not a",
    r"anew": "again, from scratch",
    r"so many": "that many, or name the number",
    r"for ever": "forever, without end",
    r"(?<!time )taken for": "mistaken for, treated as",
    r"(go|goes|went) on": "continues",
    r"obey(s|ed)?": "honours, follows",
    r"under way|in work(?![.\w])": "in flight, in progress",
    r"fates?": "outcome",
    r"holes?": "gap (offsets missing in the log)",
    r"(?<![-/$.])(?-i:home)(?![-(])": "owner partition; rehomed for the record that was sent there",
    r"may pay": "fencing: may call the provider",
    # Letters of the alphabet stay: next to digits, and as ascii_letters.
    r"((?<=[^\s#]\x20)(?<!dead\x20)|(?<=\w_)(?<!dead_)(?<!ascii_))letters?(?! (and|or) digits?|, digits)": (
        "dead letter, never letter alone"
    ),
}
_PATTERNS = {
    re.compile(rf"(?<![a-z])({word.replace(' ', '[ _]')})(?![a-z])", re.IGNORECASE): advice
    for word, advice in BANNED.items()
}
#: Customers' words, other authors' texts, generated files and recorded results; and the list itself.
_NOT_OURS = re.compile(
    r"\.(jsonl|lock|gz|svg)$|(^|/)LICENSES?\b|^agents/local/vocabulary\.py$"
    r"|^tests/chaos/record\.json$|^tests/unit/test_words\.py$"
)


def findings(path: str, text: str) -> Iterator[str]:
    """One line for each banned word, as file:line, the word, and what to write instead."""
    for number, line in enumerate(text.splitlines(), start=1):
        for pattern, advice in _PATTERNS.items():
            for found in pattern.finditer(line):
                yield f"{path}:{number}: {found[0]!r}: {advice}"


def test_no_tracked_file_has_a_banned_word() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    paths = [path for path in listed.split("\0") if path and not _NOT_OURS.search(path) and (ROOT / path).exists()]
    assert "CHANGELOG.md" in paths
    found = [line for path in paths for line in findings(path, (ROOT / path).read_text(encoding="utf-8"))]
    assert not found, "banned words:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("# Nobody reads it.", "Nobody"),
        ("def test_a_wrong_key_is_told() -> None:", "told"),
        ('"""A 202 is no promise."""', "is no"),
        ("async def test_the_reader_goes_on() -> None:", "goes_on"),
        ('hint = "the letter was sent"', "letter"),
        ("def test_a_hundred_letters() -> None:", "letters"),
        ("raise Fatal('the record is sent home')", "home"),
        ("- Mutants run for ever.", "for ever"),
    ],
)
def test_a_banned_word_is_found_where_it_is(line: str, word: str) -> None:
    """In comments, docstrings, names, messages and Markdown, with file, line and advice."""
    [found] = findings("folder/file.py", f"first = 1\n{line}\n")
    assert found.startswith(f"folder/file.py:2: {word!r}: ")


@pytest.mark.parametrize(
    "line",
    [
        "dead_letters = [dead_letter(number) for number in string.ascii_letters]",
        "must consist of letters, digits and dots; there is no default; nothing is no longer read",
        'pwd.getpwnam("nobody"), the user nobody, JAVA_HOME, Path.home(), --no-create-home --home-dir',
        "the stand-in is homed; retold, fatefully; # letters at the beginning of a line may follow dead",
    ],
)
def test_other_words_pass(line: str) -> None:
    """A word is banned whole, and only with the meaning in the list."""
    assert not list(findings("file.py", line))
