"""Mutants: modules of the product with one small defect planted into their source."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple


class Mutant(NamedTuple):
    """A defect and its module; `old` occurs exactly once in the source and becomes `new`."""

    what: str
    module: str
    old: str
    new: str


def load(name: str, mutant: Mutant | None, imported: Mapping[str, object] | None = None) -> ModuleType:
    """Loads a module of its own, with the defect if that is the mutant's module.

    `imported` takes the place of what the source imports from its neighbours. Fails when the text to change does not
    occur exactly once, so a mutant cannot outlive its source unnoticed.
    """
    path = import_module(name).__file__
    assert path is not None
    source = Path(path).read_text()
    if mutant is not None and mutant.module == name:
        assert source.count(mutant.old) == 1, f"{mutant.what}: {mutant.old!r} must occur exactly once in {name}"
        source = source.replace(mutant.old, mutant.new)
    module = ModuleType(name)
    exec(compile(source, f"<mutant of {name}>", "exec"), module.__dict__)  # noqa: S102  our own source
    vars(module).update(imported or {})
    return module
