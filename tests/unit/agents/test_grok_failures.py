"""Failed calls: which error, which class, how long to wait, billed or not, and whether the breaker counts them."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import aiohttp
import pytest

from agents.analyser import ErrorClass
from agents.grok.failures import MAX_RETRY_AFTER_S, failure_of_exception, failure_of_status, retry_after_s
from schemas.errors import Fatal, Retryable, Unprocessable

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
WRONG_KEY = b'{"code": "x", "error": "Incorrect API key provided: sk***yz. You can obtain an API key there."}'


@pytest.mark.parametrize(
    ("status", "error_class", "ambiguous"),
    [
        (408, "timeout", False),
        (429, "rate_limited", False),
        (500, "server", False),
        (502, "server", True),
        (503, "server", False),
        (504, "server", True),
        (520, "server", True),
        (529, "server", False),
    ],
)
def test_passing_failures_can_be_tried_again(status: int, error_class: ErrorClass, ambiguous: bool) -> None:
    """They trip the breaker; only a gateway's lost reply may have been billed."""
    failure = failure_of_status(status, {"Retry-After": "7"}, b"", NOW)
    assert isinstance(failure.error, Retryable)
    assert failure.error.retry_after_s == 7
    assert (failure.error_class, failure.ambiguous, failure.trips_breaker) == (error_class, ambiguous, True)


@pytest.mark.parametrize(
    ("status", "body", "setting"),
    [
        (401, b"", "XAI_API_KEY"),
        (402, b"", "XAI_API_KEY"),
        (403, b'{"error": "no permission"}', "XAI_API_KEY"),
        (400, WRONG_KEY, "XAI_API_KEY"),
        (404, b"", "GROK_MODEL"),
        (400, b'{"error": "Model not found: grok-1"}', "GROK_MODEL"),
        (405, b"", "GROK_BASE_URL"),
        (415, b"", "GROK_BASE_URL"),
        (302, b"", "GROK_BASE_URL"),
    ],
)
def test_wrong_settings_stop_the_work_and_are_named(status: int, body: bytes, setting: str) -> None:
    """Three lines, with the setting to change, without body or key."""
    failure = failure_of_status(status, {}, body, NOW)
    assert isinstance(failure.error, Fatal)
    assert setting in failure.error.hint
    assert "sk***yz" not in f"{failure.error.what}{failure.error.why}{failure.error.hint}"
    assert not failure.trips_breaker


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b'{"error": "bad input"}'),
        (413, b""),
        (422, b""),
        (403, b'{"error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"}'),
    ],
)
def test_what_is_about_one_text_ends_that_text_only(status: int, body: bytes) -> None:
    """A dead letter; all others go on."""
    failure = failure_of_status(status, {}, body, NOW)
    assert isinstance(failure.error, Unprocessable)
    assert failure.error.reason == "refused"
    assert (failure.ambiguous, failure.trips_breaker) == (False, False)


def test_a_text_that_is_echoed_cannot_stop_the_service() -> None:
    """Only the beginning of an error body is looked at: a conversation may well speak of incorrect API keys."""
    echoed = b'{"code": "invalid", "error": "cannot be processed: ' + b"x" * 300 + b"incorrect API key" + b'"}'
    assert isinstance(failure_of_status(400, {}, echoed, NOW).error, Unprocessable)


@pytest.mark.parametrize(
    ("value", "expected_s"),
    [
        ("0", 0),
        ("12", 12),
        ("1.5", 1.5),
        ("-3", None),
        ("99999", MAX_RETRY_AFTER_S),
        ("soon", None),
        ("", None),
        (None, None),
        ("nan", None),
        ("1e5", None),
        (format_datetime(NOW + timedelta(seconds=20), usegmt=True), 20),
        (format_datetime(NOW - timedelta(seconds=20), usegmt=True), 0),
        (format_datetime(NOW + timedelta(days=20), usegmt=True), MAX_RETRY_AFTER_S),
    ],
)
def test_retry_after_is_read_in_both_forms_and_bounded(value: str | None, expected_s: float | None) -> None:
    """Seconds or an HTTP date; what cannot be read is no wait at all rather than a wrong one."""
    assert retry_after_s(value, NOW) == expected_s


@pytest.mark.parametrize(
    ("error", "error_class", "ambiguous"),
    [
        (TimeoutError(), "timeout", True),
        (aiohttp.SocketTimeoutError(), "timeout", True),
        (aiohttp.ConnectionTimeoutError(), "connection", False),
        (aiohttp.ServerDisconnectedError(), "connection", True),
        (aiohttp.ClientOSError(104, "reset"), "connection", True),
        (aiohttp.ClientPayloadError(), "connection", True),
    ],
)
def test_lost_replies_may_have_been_billed(error: Exception, error_class: ErrorClass, ambiguous: bool) -> None:
    """Unless no connection came about; all can be tried again and trip the breaker."""
    assert isinstance(error, aiohttp.ClientError | TimeoutError)
    failure = failure_of_exception(error)
    assert isinstance(failure.error, Retryable)
    assert (failure.error_class, failure.ambiguous, failure.trips_breaker) == (error_class, ambiguous, True)


def test_an_address_that_is_no_url_is_a_wrong_setting() -> None:
    """No retry makes it one."""
    failure = failure_of_exception(aiohttp.InvalidURL("nonsense"))
    assert isinstance(failure.error, Fatal)
    assert "GROK_BASE_URL" in failure.error.hint
