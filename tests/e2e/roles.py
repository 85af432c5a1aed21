"""Users of the database with fewer rights than its owner, for tests of what each program needs."""

import re
from urllib.parse import urlsplit

import asyncpg

from tests.support.processes import ROOT

PASSWORD = "kanari"
_STATEMENTS = re.findall(r"(?m)^(GRANT .* TO )(worker|gateway);$", (ROOT / "docs" / "operating.md").read_text())
#: The statements in docs/operating.md, to be formatted with the user's name.
WORKER_GRANTS, GATEWAY_GRANTS = (
    "; ".join(f"{statement}{{0}}" for statement, program in _STATEMENTS if program == name)
    for name in ("worker", "gateway")
)


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
