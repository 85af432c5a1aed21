"""`grok-insights schemas`: the JSON Schemas of all messages, and the list of settings, written from the code."""

from pathlib import Path
from typing import Annotated

import typer

from schemas.errors import Fatal
from schemas.export import generated_files


def schemas(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 when a file is not current.")] = False,
    root: Annotated[Path, typer.Option(help="The checkout whose files are meant.")] = Path(),
) -> None:
    """Write schemas/json/*.json and .env.example anew from the code, in a checkout."""
    files = generated_files()
    stale = [path for path, content in files.items() if not _is_current(root / path, content)]
    if check and stale:
        raise Fatal("generated files are not current", ", ".join(stale), "run: grok-insights schemas")
    for path in stale:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(files[path])
        typer.echo(f"wrote {path}")


def _is_current(path: Path, content: str) -> bool:
    return path.exists() and path.read_text() == content
