"""DATABASE_URL as cloud providers hand it out: understood, or refused by name, and never quoted."""

from pathlib import Path

import pytest

from schemas.errors import Fatal
from streams.postgres.database import parse_database_url

LOGIN = "postgresql://user:secret@"


@pytest.mark.parametrize(
    ("url", "hosts", "name"),
    [
        (f"{LOGIN}db:6543/insights", (("db", 6543),), "insights"),
        ("postgres://user@db", (("db", 5432),), "user"),
        (f"{LOGIN}[::1]:5433/x\n", (("::1", 5433),), "x"),
        (f"{LOGIN}a,b:5433/x", (("a", 5432), ("b", 5433)), "x"),
        (f"{LOGIN}a,b/x?port=1,2", (("a", 1), ("b", 2)), "x"),
        (f"{LOGIN}%2Fcloudsql%2Fproject:region:one/x", (("/cloudsql/project:region:one", 5432),), "x"),
        ("postgresql:///x?host=/cloudsql/project:region:one&user=user", (("/cloudsql/project:region:one", 5432),), "x"),
        ("postgresql://?host=db&port=1&dbname=x&user=user&password=secret", (("db", 1),), "x"),
    ],
)
def test_a_location_is_found_wherever_libpq_allows_it(url: str, hosts: tuple[tuple[str, int], ...], name: str) -> None:
    """In the authority, as a socket's folder, or as parameters."""
    database = parse_database_url(url)
    assert (database.hosts, database.name, database.user) == (hosts, name, "user")


def test_the_login_is_decoded_and_not_shown() -> None:
    """A password may hold every character."""
    database = parse_database_url("postgresql://us%40er:%2F%23%25%3F%40:pass@db/x")
    assert (database.user, database.password) == ("us@er", "/#%?@:pass")
    assert "pass" not in repr(database).replace("password", "")
    assert "pass" not in database.url_without_password()


def test_parameters_are_understood(tmp_path: Path) -> None:
    """Those of libpq, and those that Prisma and poolers add."""
    certificate = tmp_path / "root.crt"
    certificate.touch()
    database = parse_database_url(
        f"{LOGIN}db/x?sslmode=verify-full&sslrootcert={certificate}&connect_timeout=7&application_name=a%20b"
        "&channel_binding=prefer&target_session_attrs=primary&pgbouncer=true&schema=public&options=-c%20geqo%3Doff"
    )
    assert database.tls == {"sslmode": "verify-full", "sslrootcert": str(certificate)}
    assert (database.connect_timeout_s, database.application_name) == (7, "a b")
    assert (database.target_session_attrs, database.is_pooled) == ("primary", True)
    assert database.server_settings == {"options": "-c geqo=off"}


def test_of_several_hosts_one_that_takes_writes_is_used() -> None:
    """Unless the URL says otherwise."""
    assert parse_database_url(f"{LOGIN}a,b/x").target_session_attrs == "read-write"
    assert parse_database_url(f"{LOGIN}a,b/x?target_session_attrs=any").target_session_attrs == "any"


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("sslmode=on", "sslmode must be disable"),
        ("channel_binding=require", "channel_binding must be disable or prefer"),
        ("sslrootcert=/none", "sslrootcert must be the path of a readable file"),
        ("sslrootcert=/", "sslrootcert must be the path of a readable file"),
        ("sslmode=verify-full", "sslrootcert is required"),
        ("connect_timeout=soon", "connect_timeout must be whole seconds"),
        ("target_session_attrs=master", "target_session_attrs must be"),
        ("connection_limit=1&krbsrvname=x", "connection_limit is not supported; krbsrvname is not supported"),
        ("pgbouncer=true&schema=own", "schema needs a connection without pooler"),
        ("schema=a%22b", "schema must be the name of a schema"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(query: str, named: str) -> None:
    """With exit code 2, as every setting that is wrong."""
    with pytest.raises(Fatal) as caught:
        parse_database_url(f"{LOGIN}db/x?{query}")
    assert named in caught.value.why
    assert caught.value.exit_code == 2
    assert "secret" not in f"{caught.value.why} {caught.value.hint}"


@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:kanari@db/x",
        "kanari",
        "host=db password=kanari",
        "postgresql://user:kan/ari@db/x",
        "postgresql://user:kan#ari@db/x",
        "postgresql://user:kan?ari@db/x",
        "postgresql://user:kan?ari=nest&vogel=1@db/x",
        "postgresql://user:kan%ari@db/x",
        "postgresql://user:kan ari@db/x",
        "postgresql://user:kan[ari@db:kanari/x",
        "postgresql://user:%ff@db/x",
        "postgresql://user:kan%00ari@db/x",
        "postgresql://db/x?user=u&password=kan&ari=1",
        "postgresql://user:kanari@db/x?user=other",
        "postgresql://user:kanari@db,b/x?port=1,2,3",
        "postgresql://user:kanari@db:0/x",
        "postgresql://user:kanari@/x",
        "postgresql://:kanari@db/x",
        "postgresql://user:kanari@db/x?sslmode",
    ],
)
def test_a_malformed_url_is_refused_without_a_part_of_it(url: str) -> None:
    """A password that is not percent-encoded makes any part of it look like a host, a port or a parameter."""
    with pytest.raises(Fatal) as caught:
        parse_database_url(url)
    shown = f"{caught.value.what} {caught.value.why} {caught.value.hint}"
    assert "not a valid PostgreSQL URL" in shown
    assert not [part for part in ("kan", "ari", "nest", "vogel") if part in shown]
