"""What a failed statement means for its rows."""

import asyncpg
import pytest

from streams.postgres.errors import SqlFailure, classify, explain_failure


def of_state(state: str) -> Exception:
    """An error as asyncpg makes it of the server's message."""
    error = asyncpg.PostgresError.new({"C": state, "M": "", "S": "ERROR"})
    assert isinstance(error, asyncpg.PostgresError)
    return error


@pytest.mark.parametrize(
    ("state", "means"),
    [
        ("40001", SqlFailure.CONFLICT),
        ("40P01", SqlFailure.CONFLICT),
        ("57014", SqlFailure.TOO_SLOW),
        ("55P03", SqlFailure.TOO_SLOW),
        ("08006", SqlFailure.PASSING),
        ("25006", SqlFailure.PASSING),  # an old primary
        ("28P01", SqlFailure.PASSING),  # a password that is being changed
        ("53100", SqlFailure.PASSING),
        ("53300", SqlFailure.PASSING),
        ("57P01", SqlFailure.PASSING),
        ("57P03", SqlFailure.PASSING),
        ("26000", SqlFailure.PASSING),  # a pooler lost the prepared statement
        ("42P05", SqlFailure.PASSING),  # a pooler has one of that name
        ("42P01", SqlFailure.SCHEMA),
        ("42501", SqlFailure.SCHEMA),
        ("22021", SqlFailure.ROW),
        ("23514", SqlFailure.ROW),
        ("54000", SqlFailure.ROW),
        ("P0001", SqlFailure.ROW),
        ("0A000", SqlFailure.ROW),
        ("21000", SqlFailure.ROW),
        ("2F000", SqlFailure.ROW),
        ("38000", SqlFailure.ROW),
        ("39000", SqlFailure.ROW),
        ("HV000", SqlFailure.ROW),
        ("XX000", SqlFailure.ROW),
        ("XX001", SqlFailure.ROW),
        ("99999", SqlFailure.ROW),  # a state of a version to come
    ],
)
def test_the_server_says_whose_fault_it_is(state: str, means: SqlFailure) -> None:
    """The class of its SQLSTATE decides."""
    assert classify(of_state(state)) is means


@pytest.mark.parametrize(
    ("error", "means"),
    [
        (TimeoutError(), SqlFailure.TOO_SLOW),
        (ConnectionResetError(), SqlFailure.PASSING),
        (asyncpg.InterfaceError("connection is closed"), SqlFailure.PASSING),
        (asyncpg.InternalClientError("another operation is in progress"), SqlFailure.PASSING),
        (asyncpg.InvalidCachedStatementError("the table was changed"), SqlFailure.PASSING),
        (asyncpg.DataError("invalid input for query argument"), SqlFailure.ROW),
        (ZeroDivisionError(), SqlFailure.ROW),
    ],
)
def test_what_the_client_says_itself(error: Exception, means: SqlFailure) -> None:
    """A lost connection passes; after a defect the faulty row is searched for."""
    assert classify(error) is means


@pytest.mark.parametrize("state", ["22P02", "23505", "P0001", "XX000"])
def test_messages_that_may_quote_a_conversation_are_not_shown(state: str) -> None:
    """Only those of classes that name roles, databases and tables."""
    error = asyncpg.PostgresError.new({"C": state, "M": 'invalid input: "my card number"', "S": "ERROR"})
    assert "card" not in explain_failure(error, "db:5432").why
