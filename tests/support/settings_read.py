"""Which settings a command reads, found in its code: each `settings.NAME` of the modules that it imports."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from schemas.settings import KNOWN_NAMES, Settings

ROOT = Path(__file__).parents[2]
#: Settings that no command reads, since the settings themselves check them with another one.
_CHECKED_WITH = {"gateway_host": "allow_anonymous"}


def settings_read_by(module: str) -> set[str]:
    """Returns names as in the environment. SECRETS_DIR is among them: loading the settings reads it."""
    waiting, seen, attributes = [module], set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        path = (ROOT / name.replace(".", "/")).with_suffix(".py")
        # schemas.settings itself names settings of every command.
        if name in seen or name.startswith("schemas.") or not path.exists():
            continue
        seen.add(name)
        tree = ast.parse(path.read_text())
        waiting += _imports(tree)
        attributes |= {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "settings"
        }
    fields = {field for attribute in attributes for field in _fields(attribute)}
    fields |= {_CHECKED_WITH[field] for field in fields & _CHECKED_WITH.keys()}
    return {"SECRETS_DIR"} | {field.upper() for field in fields} & KNOWN_NAMES


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _fields(attribute: str) -> set[str]:
    """Returns the fields behind a property of Settings; any other attribute is one itself."""
    found = vars(Settings).get(attribute)
    return set(re.findall(r"\bself\.(\w+)", inspect.getsource(found.fget))) if found else {attribute}
