"""`grok-insights schemas`."""

from pathlib import Path
from typing import Annotated

import typer

from schemas.errors import Fatal
from schemas.export import generated_files


def schemas(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit with 1 if a file differs.")] = False,
    root: Annotated[Path, typer.Option(help="Root of the repository.")] = Path(),
) -> None:
    """Generate schemas/json/*.json and .env.example from the code."""
    files = generated_files()
    stale = [path for path, content in files.items() if not _is_current(root / path, content)]
    if check and stale:
        raise Fatal("generated files are out of date", ", ".join(stale), "run: grok-insights schemas")
    for path in stale:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(files[path])
        typer.echo(f"wrote {path}")


def _is_current(path: Path, content: str) -> bool:
    return path.exists() and path.read_text() == content
