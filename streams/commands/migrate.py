"""`grok-insights migrate`."""

from typing import Annotated

import typer

from schemas.settings import load_settings
from streams.commands.output import print_json
from streams.postgres.migrations import migrate_database


def migrate(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Migrate the database; does nothing when it is up to date.

    Settings: DATABASE_URL.
    """
    settings = load_settings("database_url")
    assert settings.database_url is not None, "load_settings requires it"
    lines = migrate_database(settings.database_url.get_secret_value())
    if as_json:
        print_json({"applied": [line.removeprefix("Applied: ").split()[0] for line in lines if "Applied" in line]})
        return
    typer.echo("\n".join(lines) or "up to date")
