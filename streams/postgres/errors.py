"""Says what a failure of Postgres means: for the rows of a statement, and for a person. Pure."""

import ssl
from enum import Enum, auto
from typing import NamedTuple

import asyncpg

from schemas.connection_errors import describe_connection_error

#: What connecting and querying raises when the server, the network or the login is at fault.
CONNECTION_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

_SCHEMA_CLASS = "42"
_CONFLICTS = ("40001", "40P01")
#: Cancelled by a timeout of the server, or a lock not obtained: one row of the batch may be locked.
_TOO_SLOW = ("57014", "55P03")
#: A prepared statement of that name is there already: a pooler is in between, and a new connection finds that out.
_DUPLICATE_STATEMENT = "42P05"
#: SQLSTATE classes about the server or the connection: connection, session, login, database, rollback, resources,
#: locks, operator intervention, disk, and a prepared statement that a pooler has lost. Every other class, also an
#: unknown one, counts as the fault of a row. If that is wrong, the dead-letter limit stops the worker; a row that is
#: retried without end would keep the other rows of its batch from being written.
_PASSING_CLASSES = ("08", "25", "26", "28", "3D", "40", "53", "55", "57", "58")


class SqlFailure(Enum):
    """How to handle the rows of a failed statement."""

    CONFLICT = auto()  # conflict with another session, which has finished: retry at once
    TOO_SLOW = auto()  # retry in halves, so that a locked row does not block the others
    PASSING = auto()  # retry on a new connection: this one may be broken, or lead to a read-only server
    SCHEMA = auto()  # a missing table, column or privilege: an operator has to act
    ROW = auto()  # the server refuses a row, and a retry would fail again


def classify(error: Exception) -> SqlFailure:
    """Unknown errors count as ROW: they cost that row and not the others of its batch."""
    # The table changed under a prepared statement. A new connection helps, unlike with other errors of its SQLSTATE.
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return SqlFailure.PASSING
    if isinstance(error, asyncpg.PostgresError):
        return _by_state(error.sqlstate or "")
    if isinstance(error, TimeoutError):
        return SqlFailure.TOO_SLOW
    # asyncpg raises InternalClientError ("another operation is in progress") when the connection is cut while it sends
    # the statement.
    if isinstance(error, OSError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        return SqlFailure.PASSING
    return SqlFailure.ROW


def _by_state(state: str) -> SqlFailure:
    if state in _CONFLICTS:
        return SqlFailure.CONFLICT
    if state in _TOO_SLOW:
        return SqlFailure.TOO_SLOW
    if state == _DUPLICATE_STATEMENT:
        return SqlFailure.PASSING
    if state.startswith(_SCHEMA_CLASS):
        return SqlFailure.SCHEMA
    return SqlFailure.PASSING if state.startswith(_PASSING_CLASSES) else SqlFailure.ROW


#: SQLSTATE classes whose messages name roles, databases, hosts, tables and limits. Those of other classes quote values.
_SAFE_CLASSES = ("08", "25", "26", "28", "3D", "3F", "42", "53", "55", "57", "58")
#: PgBouncer gives one SQLSTATE, 08P01, to all that it refuses; these refusals do not pass.
_POOLER_REFUSALS = ("authentication failed", "does not exist", "no such", "unsupported startup parameter")
_CHECK_URL = "check DATABASE_URL and that the database is running"
_CHECK_LOGIN = "check the user and the password in DATABASE_URL, and pg_hba.conf of the server"
_CHECK_DATABASE = "create the database, or correct its name in DATABASE_URL"
_MIGRATE = "create or update the tables with: grok-insights migrate"
_GRANT = (
    "grant the user of DATABASE_URL what it lacks: SELECT, INSERT and UPDATE on insights, INSERT on calls, "
    "and CREATE for `migrate`"
)
_FREE_LOCK = "wait for the session that holds a lock on the tables, or end it: see pg_stat_activity"
_CHECK_TLS = "check sslmode and sslrootcert in DATABASE_URL, and that the server has TLS enabled"


class PostgresFailure(NamedTuple):
    """`why` is one line without secrets or conversation text; waiting does not fix a permanent failure."""

    why: str
    hint: str
    is_permanent: bool


def explain_failure(error: BaseException, where: str) -> PostgresFailure:
    """Explains why a connection or a statement failed; `where` names the hosts and ports."""
    if isinstance(error, asyncpg.PostgresError):
        return _explain_answer(error)
    if isinstance(error, ssl.SSLError):
        return PostgresFailure(describe_connection_error(error, where), _CHECK_TLS, is_permanent=True)
    if type(error) is ConnectionError and "rejected SSL upgrade" in str(error):
        why = f"the server at {where} has no TLS, which sslmode requires"
        return PostgresFailure(why, _CHECK_TLS, is_permanent=True)
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        why = f"no server of {where} matches target_session_attrs"
        return PostgresFailure(why, _CHECK_URL, is_permanent=False)
    if isinstance(error, OSError):
        return PostgresFailure(describe_connection_error(error, where), _CHECK_URL, is_permanent=False)
    is_permanent = isinstance(error, asyncpg.ClientConfigurationError)
    return PostgresFailure(f"{where}: {type(error).__name__}", _CHECK_URL, is_permanent)


def _explain_answer(error: asyncpg.PostgresError) -> PostgresFailure:
    state, message = error.sqlstate or "", " ".join(str(error.message or "").split())
    why = message if message and state.startswith(_SAFE_CLASSES) else f"{type(error).__name__} ({state})"
    if state.startswith("28"):
        return PostgresFailure(why, _CHECK_LOGIN, is_permanent=True)
    if state == "55P03":
        return PostgresFailure(why, _FREE_LOCK, is_permanent=False)
    if state.startswith(("3D", "3F")):
        return PostgresFailure(why, _CHECK_DATABASE, is_permanent=True)
    if state == "42501":
        return PostgresFailure(why, _GRANT, is_permanent=True)
    if state.startswith(_SCHEMA_CLASS) and state != _DUPLICATE_STATEMENT:
        return PostgresFailure(why, _MIGRATE, is_permanent=True)
    if state == "08P01" and any(refusal in message for refusal in _POOLER_REFUSALS):
        return PostgresFailure(why, _CHECK_LOGIN, is_permanent=True)
    return PostgresFailure(why, _CHECK_URL, is_permanent=False)
