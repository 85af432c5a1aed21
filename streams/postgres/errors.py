"""Classifies a failed statement by the server's SQLSTATE: what it means for the rows in it. Pure."""

from enum import Enum, auto

import asyncpg

_SCHEMA_CLASS = "42"
_CONFLICTS = ("40001", "40P01")
#: Cancelled by a time limit of the server, or a lock not obtained: one row of the batch may be what it waits for.
_TOO_SLOW = ("57014", "55P03")
#: Classes of SQLSTATE about the server or the way to it: connection, state and login of the session, database,
#: rollback, resources, locks, an operator's command, disk, and a prepared statement that a pooler has lost.
#: All others count as some row's own, also unknown ones: if that is wrong, the dead-letter limit stops the worker,
#: whereas a row that is retried for ever keeps its neighbours from being written.
_PASSING_CLASSES = ("08", "25", "26", "28", "3D", "40", "53", "55", "57", "58")


class SqlFailure(Enum):
    """What to do with the rows of the statement."""

    CONFLICT = auto()  # with another session, which is through now: again at once
    TOO_SLOW = auto()  # again, in halves, so that a locked row does not hold up its neighbours
    PASSING = auto()  # again, on a new connection: this one may be broken, or lead to a server that only reads
    SCHEMA = auto()  # no such table or column, no right to write: an operator has to act
    ROW = auto()  # some row of it is refused, and will be


def classify(error: Exception) -> SqlFailure:
    """Unforeseen errors count as some row's own: then they cost that row, and not its neighbours."""
    # The table was changed under a prepared statement: a new connection mends that, unlike others of its state, 0A000.
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return SqlFailure.PASSING
    if isinstance(error, asyncpg.PostgresError):
        return _by_state(error.sqlstate or "")
    if isinstance(error, TimeoutError):
        return SqlFailure.TOO_SLOW
    # InternalClientError is what asyncpg raises when a connection is cut just as the statement is sent ("another
    # operation is in progress").
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
