"""Users of the database with fewer rights than its owner, for tests of what each program needs."""

from urllib.parse import urlsplit

import asyncpg

PASSWORD = "kanari"
#: What docs/operating.md says that a worker needs.
WORKER_GRANTS = "GRANT SELECT, INSERT, UPDATE ON insights TO {0}; GRANT INSERT ON calls TO {0}"


def url_of(
    database_url: str, *, user: str | None = None, password: str = PASSWORD, name: str = "", query: str = ""
) -> str:
    """The URL with another user, database or query."""
    found = urlsplit(database_url)
    login = f"{user}:{password}" if user else f"{found.username}:{found.password}"
    return f"postgresql://{login}@{found.hostname}:{found.port}/{name or found.path[1:]}?{query or found.query}"


async def execute(url: str, *statements: str) -> None:
    """Runs the statements as the URL's user."""
    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()
