"""Finds the files under infra/: beside the packages in a checkout, inside them in an installed wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def infra(name: str) -> Path:
    """Returns the folder infra/`name`. Raises FileNotFoundError when neither a checkout nor a wheel has it."""
    for folder in (_PACKAGE / "_infra" / name, _PACKAGE.parent / "infra" / name):
        if folder.exists():
            return folder
    raise FileNotFoundError(f"infra/{name} is not part of this installation")
