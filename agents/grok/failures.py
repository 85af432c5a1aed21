"""A failed call -> which error the caller gets, how long to wait, and whether the call may have been billed.

Ambiguous is what may have been billed although no answer came: a time limit or a cut connection after the request was
sent, and a gateway's 502 and 504 (and 520-524), which speak of a lost reply. A 500, 503 or 429 is the provider's own
word that it did not answer; a refused connection never carried the request.

The breaker counts what says that the provider is unwell or wants less: timeouts, connections, 408, 429 and 5xx.
It does not count what is about one text or about our settings.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp

from agents.analyser import ErrorClass
from schemas.dead_letter import DeadLetterReason
from schemas.errors import Fatal, InsightsError, Retryable, Unprocessable

#: Nobody waits longer on a server's word alone.
MAX_RETRY_AFTER_S = 300.0

_LOST_REPLY = frozenset({502, 504, 520, 521, 522, 523, 524})
_PASSING = frozenset({408, 429})
_ABOUT_THE_TEXT = frozenset({400, 413, 422})
#: Error bodies may echo the text, so that only the documented wording near the beginning counts.
_LOOKED_AT_BYTES = 300
_WRONG_KEY = re.compile(rb"(?:incorrect|invalid) api key", re.IGNORECASE)
_NO_SUCH_MODEL = re.compile(rb"model not found|the model \S+ does not exist", re.IGNORECASE)
#: Sent with 403, the status of a key without rights, for a text that the provider's safety check stopped.
_AGAINST_GUIDELINES = re.compile(rb"content violates usage guidelines", re.IGNORECASE)


class CallFailure(Exception):
    """`error` is for the caller; the rest is for the breaker and the observer."""

    def __init__(
        self, error: InsightsError, error_class: ErrorClass, *, ambiguous: bool = False, trips_breaker: bool = False
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.error_class = error_class
        self.ambiguous = ambiguous
        self.trips_breaker = trips_breaker


def failure_of_status(status: int, headers: Mapping[str, str], body: bytes, now: datetime) -> CallFailure:
    """For a reply whose status is not 200. Neither the body nor the key is ever shown."""
    if status in _PASSING or status >= 500:
        return _passing(status, retry_after_s(headers.get("Retry-After"), now))
    beginning = body[:_LOOKED_AT_BYTES]
    if status == 403 and _AGAINST_GUIDELINES.search(beginning):
        return _refused("the provider's safety check stopped this text")
    if status == 404 or (status == 400 and _NO_SUCH_MODEL.search(beginning)):
        return _fatal(status, "check GROK_MODEL, since models retire, and GROK_BASE_URL")
    if status in (401, 402, 403) or (status == 400 and _WRONG_KEY.search(beginning)):
        return _fatal(status, "check XAI_API_KEY: is it current, funded, and allowed to use the model in GROK_MODEL?")
    if status in _ABOUT_THE_TEXT:
        return _refused(f"the provider answered this text with status {status}")
    # Redirects among them: they are not followed, since the key would travel along.
    return _fatal(status, "check GROK_BASE_URL: does it speak the chat completions API?")


def failure_of_exception(error: aiohttp.ClientError | TimeoutError) -> CallFailure:
    """For a call without a whole reply."""
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return _lost("connection", "the provider could not be reached", ambiguous=False)
    if isinstance(error, TimeoutError):
        return _lost("timeout", "the provider did not answer in time", ambiguous=True)
    if isinstance(error, aiohttp.InvalidURL):
        fatal = Fatal("Grok cannot be asked", "its address is no URL", "check GROK_BASE_URL")
        return CallFailure(fatal, "client")
    return _lost("connection", f"the connection broke off ({type(error).__name__})", ambiguous=True)


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds from a Retry-After header: a number or an HTTP date, within 0 and MAX_RETRY_AFTER_S; None if unusable."""
    if value is None:
        return None
    try:
        seconds = float(value) if value.strip().replace(".", "", 1).isdecimal() else _until(value, now)
    except ValueError:
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def _until(http_date: str, now: datetime) -> float:
    at = parsedate_to_datetime(http_date)
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds()


def _passing(status: int, wait_s: float | None) -> CallFailure:
    error = Retryable(f"the provider answered with status {status}", retry_after_s=wait_s)
    error_class: ErrorClass = "rate_limited" if status == 429 else "server" if status >= 500 else "timeout"
    return CallFailure(error, error_class, ambiguous=status in _LOST_REPLY, trips_breaker=True)


def _lost(error_class: ErrorClass, detail: str, *, ambiguous: bool) -> CallFailure:
    return CallFailure(Retryable(detail), error_class, ambiguous=ambiguous, trips_breaker=True)


def _refused(detail: str) -> CallFailure:
    return CallFailure(Unprocessable(DeadLetterReason.REFUSED, detail), "client")


def _fatal(status: int, hint: str) -> CallFailure:
    error_class: ErrorClass = "auth" if status in (400, 401, 402, 403) else "client"
    return CallFailure(Fatal("Grok cannot be asked", f"it answered with status {status}", hint), error_class)
