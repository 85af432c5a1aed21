"""The test folders are independent: each may use the shared modules, none may use another folder."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SHARED = {"support", "fakes"}
SUITES = sorted(folder.name for folder in TESTS.iterdir() if folder.is_dir() and any(folder.rglob("*.py")))


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_imports_no_other_suite(suite: str) -> None:
    """Code that two of them need belongs in tests/support."""
    allowed = SHARED | {suite}
    wrong = [f"{file}: {name}" for file in (TESTS / suite).rglob("*.py") for name in imports_of(file) - allowed]
    assert not wrong


def imports_of(file: Path) -> set[str]:
    """The suites whose modules a file imports."""
    return {name.split(".")[1] for name in imported_names(file) if name.startswith("tests.")}


def imported_names(file: Path) -> Iterator[str]:
    """Absolute names of modules, wherever in the file they are imported."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
