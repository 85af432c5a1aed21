"""Classifies a failed statement by its SQLSTATE: whether, and how, to retry its rows. Pure."""

from enum import Enum, auto

import asyncpg

_SCHEMA_CLASS = "42"
_CONFLICTS = ("40001", "40P01")
#: Cancelled by a timeout of the server, or a lock not obtained: one row of the batch may be locked.
_TOO_SLOW = ("57014", "55P03")
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
    if state.startswith(_SCHEMA_CLASS):
        return SqlFailure.SCHEMA
    return SqlFailure.PASSING if state.startswith(_PASSING_CLASSES) else SqlFailure.ROW
