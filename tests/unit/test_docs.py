"""What the README and the pages beside it name exists: files, headings, targets, commands, options and settings."""

import re
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.main import get_command

from schemas.conversation import decode_conversation
from schemas.settings import Settings
from streams.cli import cli

ROOT = Path(__file__).parents[2]
#: Every page for users and contributors. ADRs keep what was true when they were written.
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(ROOT.glob("docs/*.md")))
}
#: Variables that every program knows, and the one that steers the tests.
OTHER_VARIABLES = {"HTTPS_PROXY", "NO_PROXY", "GROK_INSIGHTS_TEST_REQUIRE"}
#: Names of Postgres and of a program that `make bench` compares with.
OTHER_NAMES = {"pg_dump", "track_commit_timestamp", "max_workers"}
MAX_PARAGRAPH_CHARS = 400

every_page = pytest.mark.parametrize("page", PAGES)


def named(page: str, pattern: str) -> set[str]:
    """What the pattern's group matches in a page."""
    return set(re.findall(pattern, PAGES[page], re.MULTILINE))


def without_code_blocks(markdown: str) -> str:
    return re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)


def paragraphs(markdown: str) -> list[str]:
    """Paragraphs, list items and table cells outside of code blocks."""
    blocks = re.split(r"\n\s*\n|\n(?=- |\d+\. |\|)", without_code_blocks(markdown))
    return [part.strip() for block in blocks for part in (block.split("|") if block.startswith("|") else [block])]


def anchors(markdown: str) -> set[str]:
    """The names by which links reach the headings, formed as GitHub forms them."""
    headings = re.findall(r"^#+ (.*)$", without_code_blocks(markdown), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def is_broken(page: str, link: str) -> bool:
    """Whether a relative link names no file or folder of the repository, or no heading of it."""
    path, _, anchor = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    return not target.exists() or bool(anchor and anchor not in anchors(target.read_text()))


def is_command(line: str) -> bool:
    """Whether the words after `grok-insights` are a command, or a command of a group, with these options."""
    found: Any = get_command(cli)
    words = line.split()
    while words and hasattr(found, "get_command"):
        found = found.get_command(None, words.pop(0))
    options = {option for parameter in getattr(found, "params", ()) for option in parameter.opts}
    return found is not None and {word.partition("=")[0] for word in words if word.startswith("--")} <= options


@cache
def source_names() -> set[str]:
    """Every word of the code, migrations and alert rules."""
    files = [path for folder in ("agents", "schemas", "streams", "infra") for path in (ROOT / folder).rglob("*")]
    return set(re.findall(r"\w+", "\n".join(f.read_text() for f in files if f.suffix in (".py", ".sql", ".yml"))))


@every_page
def test_links_lead_somewhere(page: str) -> None:
    """Every relative link."""
    links = {link for link in named(page, r"\]\(([^)\s]+)\)") if not re.match("https?://", link)}
    assert [link for link in links if is_broken(page, link)] == []


def test_no_paragraph_of_the_readme_is_long() -> None:
    """Nor a list item or a table cell: what needs more words is a page in docs/."""
    assert [text for text in paragraphs(PAGES["README.md"]) if len(text) > MAX_PARAGRAPH_CHARS] == []


@every_page
def test_make_targets_exist(page: str) -> None:
    """Every `make x`."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named(page, r"(?:`|^\$ |=\S+ )make ([a-z]+(?:-[a-z]+)*)") <= targets


@every_page
def test_commands_and_their_options_exist(page: str) -> None:
    """Every `grok-insights x --y`."""
    lines = named(page, r"(?:`|^\$ |/)grok-insights ([^`|\n#]+)")
    assert [line for line in lines if not is_command(line)] == []


@every_page
def test_settings_exist(page: str) -> None:
    """Every name in capitals is a setting or one of its values, or a variable of another program."""
    settings = {name.upper() for name in Settings.model_fields}
    protocols = set(get_args(Settings.model_fields["kafka_security_protocol"].annotation))
    compose = set(re.findall(r"\$\{(\w+):-", (ROOT / "docker-compose.kafka.yml").read_text()))
    assert named(page, r"\b([A-Z]+(?:_[A-Z0-9]+)+)\b") <= settings | protocols | compose | OTHER_VARIABLES


@every_page
def test_names_exist(page: str) -> None:
    """Every metric, log event, column, field and code."""
    assert named(page, r"`([a-z]+(?:_[a-z0-9]+)+)`") <= source_names() | OTHER_NAMES


@pytest.mark.parametrize("page", ["README.md", "docs/quick-start.md"])
def test_examples_of_conversations_are_accepted(page: str) -> None:
    """The gateway takes the body of each POST as it is."""
    bodies = named(page, r"-d '(\{[^']*\})'")
    assert bodies
    assert all(decode_conversation(body.encode(), from_topic=False)[1] == () for body in bodies)
