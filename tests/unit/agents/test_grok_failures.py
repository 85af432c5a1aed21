"""Failed calls: which error and class, how long to wait, whether they are billed and the breaker counts them."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import aiohttp
import pytest

from agents.analyser import ErrorClass
from agents.grok.failures import (
    MAX_RETRY_AFTER_S,
    failure_of_exception,
    failure_of_status,
    provider_words,
    retry_after_s,
)
from schemas.errors import Fatal, Retryable, Unprocessable

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
WRONG_KEY = b'{"code": "x", "error": "Incorrect API key provided: sk***yz. You can obtain an API key there."}'


@pytest.mark.parametrize(
    ("status", "error_class", "ambiguous"),
    [
        (407, "server", False),
        (408, "timeout", False),
        (409, "server", False),
        (425, "server", False),
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
    """It becomes a dead letter; all others continue."""
    failure = failure_of_status(status, {}, body, NOW)
    assert isinstance(failure.error, Unprocessable)
    assert failure.error.reason == "refused"
    assert (failure.ambiguous, failure.trips_breaker) == (False, False)


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 502])
@pytest.mark.parametrize(
    ("headers", "body"),
    [({"Content-Type": "text/html; charset=UTF-8"}, b"blocked"), ({}, b"\xef\xbb\xbf\n <!DOCTYPE html><title>")],
    ids=["by type", "by content"],
)
def test_a_proxys_page_is_tried_again(status: int, headers: dict[str, str], body: bytes) -> None:
    """It proves nothing about key, model or text, whatever its status."""
    failure = failure_of_status(status, headers, body, NOW)
    assert isinstance(failure.error, Retryable)
    assert (failure.error_class, failure.trips_breaker) == ("server", True)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, b'{"code": "permission-denied", "error": "You have used all available credits or reached its limit."}'),
        (403, b'{"code": "personal-team-blocked:spending-limit", "error": "You have run out of credits."}'),
        (429, b'{"code": "x", "error": "used all available credits or reached its monthly spending limit"}'),
    ],
)
def test_spent_credits_are_waited_for(status: int, body: bytes) -> None:
    """Each of the documented forms leads neither to a dead letter nor to a restart loop."""
    failure = failure_of_status(status, {}, body, NOW)
    assert isinstance(failure.error, Retryable)
    assert failure.trips_breaker


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (WRONG_KEY, "Incorrect API key provided: *** You can obtain an API key there."),
        (b'{"error": {"message": "The model is\\noverloaded", "type": "server_error"}}', "The model is overloaded"),
        (b'\xef\xbb\xbf{"detail": "Bearer secret-key is not known"}', "Bearer *** is not known"),
        (b'{"message": "secret-key, xai-abcdefgh and sk-12345678"}', "*** *** and ***"),
        (b"<html><head><title>Attention Required! |\n Cloudflare</title>", "Attention Required! | Cloudflare"),
        (b"<html><body>no title", "an HTML page"),
        (b"upstream connect error\x1b[31m", "upstream connect error [31m"),
        (b'{"error": "' + b"x" * 999 + b'"}', "x" * 200),
        (b'{"usage": 1}', ""),
        (b"[]", ""),
        (b"[" * 100_000, ""),
        (b'{"error": "cut off', ""),
        (b"x" * 1_000_000, "x" * 200),
        (b"", ""),
    ],
)
def test_the_providers_words_are_shown_without_keys(body: bytes, words: str) -> None:
    """On one line and cut, whatever form the error has."""
    assert provider_words(body, "secret-key") == words


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error": "cannot process: MY CARD is 4111 1111"}', "user: hello\nuser: my card is 4111 1111"),
        (b'{"error": "cannot process: my  card is"}', "user: my card\nis 4111 1111"),
        (b'{"error": "cannot process: 4111"}', "user: 4111"),
        (b'{"error": "cannot process: \\\\u0434\\\\u0430"}', "user: \u0434\u0430"),
        (b'{"error": "' + b"x " * 95 + b'4111 1111 1111 1111"}', "user: my card is 4111 1111 1111 1111"),
    ],
)
def test_words_that_may_quote_the_text_are_not_shown(body: bytes, text: str) -> None:
    """Whole or in part, with other spaces or in another case."""
    assert provider_words(body, "secret-key", text) == ""


def test_words_beside_the_text_are_shown() -> None:
    """An ordinary word in both is not a quotation."""
    body = b'{"error": "The service is overloaded."}'
    assert provider_words(body, "secret-key", "user: the parcel service was late") == "The service is overloaded."


def test_a_text_that_is_echoed_cannot_stop_the_service() -> None:
    """Only the beginning of an error body is examined: a conversation may mention incorrect API keys."""
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
    """Seconds or an HTTP date; an unreadable value means no wait rather than a wrong one."""
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
    failure = failure_of_exception(error, "api.x.ai:443")
    assert isinstance(failure.error, Retryable)
    assert (failure.error_class, failure.ambiguous, failure.trips_breaker) == (error_class, ambiguous, True)


def test_an_invalid_url_is_a_wrong_setting() -> None:
    """A retry would not help."""
    failure = failure_of_exception(aiohttp.InvalidURL("nonsense"), "api.x.ai:443")
    assert isinstance(failure.error, Fatal)
    assert "GROK_BASE_URL" in failure.error.hint
