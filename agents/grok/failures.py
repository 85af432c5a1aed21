"""A failed call -> which error the caller gets, how long to wait, and whether the call may have been billed.

Ambiguous is what may have been billed although no answer came: a time limit or a cut connection after the request was
sent, and a gateway's 502 and 504 (and 520-524), which speak of a lost reply. A 500, 503 or 429 is the provider's own
word that it did not answer; a refused connection never carried the request.

The breaker counts what says that the provider is unwell, unreachable or wants less: timeouts, connections, proxies and
their HTML pages, spent credits, 408, 409, 425, 429 and 5xx. It does not count what is about one text or our settings.
"""

import html
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp

from agents.analyser import ErrorClass
from schemas.connection_errors import describe_connection_error
from schemas.dead_letter import DeadLetterReason
from schemas.errors import Fatal, InsightsError, Retryable, Unprocessable

#: The longest Retry-After that is honoured.
MAX_RETRY_AFTER_S = 300.0

_LOST_REPLY = frozenset({502, 504, 520, 521, 522, 523, 524})
#: 407 is a proxy's word, 409 and 425 ask for another attempt.
_PASSING = frozenset({407, 408, 409, 425, 429})
_ABOUT_THE_TEXT = frozenset({400, 413, 422})
#: Error bodies may echo the text, so that only the documented wording near the beginning counts.
_LOOKED_AT_BYTES = 300
_WRONG_KEY = re.compile(rb"(?:incorrect|invalid) api key", re.IGNORECASE)
_NO_SUCH_MODEL = re.compile(rb"model not found|the model \S+ does not exist", re.IGNORECASE)
#: Sent with 403, the status of a key without rights, for a text that the provider's safety check stopped.
_AGAINST_GUIDELINES = re.compile(rb"content violates usage guidelines", re.IGNORECASE)
#: Sent with 403 as well as 429. It passes when credit is bought or a new month begins.
_OUT_OF_CREDIT = re.compile(rb"used all available credits|spending.limit", re.IGNORECASE)

_MAX_PAGE_CHARS = 4096
#: What is masked in a time that does not count; more than is shown.
_MAX_READ_CHARS = 1024
_MAX_WORDS_CHARS = 200
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
#: A key, or what the provider shows of it ("Incorrect API key provided: sk***yz").
_KEYS = re.compile(r"\S*\*{3}\S*|\b(?:xai|sk)-[\w-]{6,}|(?<=bearer )\S+", re.IGNORECASE)
#: Words that share this many characters with the text may quote it.
_QUOTE_CHARS = 12
_SHORTEST_QUOTE_CHARS = 3


class CallFailure(Exception):
    """`error` is for the caller; the rest is for the breaker, the observer and the log.

    `status` and `body` are those of the reply, if there was one. The body may quote the text: see `provider_words`.
    """

    def __init__(
        self,
        error: InsightsError,
        error_class: ErrorClass,
        *,
        ambiguous: bool = False,
        trips_breaker: bool = False,
        status: int | None = None,
        body: bytes = b"",
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.error_class = error_class
        self.ambiguous = ambiguous
        self.trips_breaker = trips_breaker
        self.status = status
        self.body = body


def failure_of_status(status: int, headers: Mapping[str, str], body: bytes, now: datetime) -> CallFailure:
    """For a reply whose status is not 200, or that is a page. The error shows neither the body nor the key."""
    beginning = body[:_LOOKED_AT_BYTES]
    if is_passing(status, headers, body) or (status == 403 and _OUT_OF_CREDIT.search(beginning)):
        return _passing(status, retry_after_s(headers.get("Retry-After"), now), body)
    if status == 403 and _AGAINST_GUIDELINES.search(beginning):
        return _refused("the provider's safety check stopped this text", status)
    if status == 404 or (status == 400 and _NO_SUCH_MODEL.search(beginning)):
        return _fatal(status, "check GROK_MODEL, since models retire, and GROK_BASE_URL")
    if status in (401, 402, 403) or (status == 400 and _WRONG_KEY.search(beginning)):
        return _fatal(status, "check XAI_API_KEY: is it current, funded, and allowed to use the model in GROK_MODEL?")
    if status in _ABOUT_THE_TEXT:
        return _refused(f"the provider answered this text with status {status}", status)
    # Redirects among them: they are not followed, since the key would travel along.
    return _fatal(status, "check GROK_BASE_URL: does it speak the chat completions API?")


def is_passing(status: int, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether the same request may succeed later, without a change of settings."""
    return status in _PASSING or status >= 500 or is_page(status, headers, body)


def is_page(status: int, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether a proxy's HTML page came instead of the provider's reply. A redirect is the fault of the address."""
    first = body[:_LOOKED_AT_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if first in (b"{", b"[") or 300 <= status < 400:
        return False
    return first == b"<" or headers.get("Content-Type", "").lower().startswith("text/html")


def provider_words(body: bytes, key: str, text: str = "") -> str:
    """The message in an error's body or the title of a page, on one line, with keys masked.

    It is "" where there is none, and where it may quote `text`, the conversation that was sent.
    """
    message = _message(body.decode(errors="replace")).replace(key, "***")[:_MAX_READ_CHARS]
    words = " ".join("".join(char if char.isprintable() else " " for char in _KEYS.sub("***", message)).split())
    looked_at = words[: _MAX_WORDS_CHARS + _QUOTE_CHARS]
    return "" if _may_quote(looked_at.lower(), text.lower()) else words[:_MAX_WORDS_CHARS]


def _message(body: str) -> str:
    """Of {"error": "..."}, {"error": {"message": "..."}} and the like, of a page, or of plain text."""
    body = body.lstrip("\ufeff \t\r\n")
    if body.startswith("<"):
        title = _TITLE.search(body, 0, _MAX_PAGE_CHARS)
        return html.unescape(title[1]) if title else "an HTML page"
    try:
        return next(_strings(json.loads(body)), "")
    except (ValueError, RecursionError):
        return "" if body.startswith(("{", "[")) else body


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name in ("error", "message", "detail"):
            yield from _strings(value.get(name))


def _may_quote(words: str, text: str) -> bool:
    if "\\u" in words:  # escaped characters cannot be compared
        return True
    text_on_one_line = " ".join(text.split())
    starts = range(max(1, len(words) - _QUOTE_CHARS + 1))
    if words and any(words[start : start + _QUOTE_CHARS] in text_on_one_line for start in starts):
        return True
    lines = (line.partition(": ")[2] or line for line in text.splitlines())
    return any(_SHORTEST_QUOTE_CHARS <= len(line) <= _QUOTE_CHARS and line in words for line in lines)


def failure_of_exception(error: aiohttp.ClientError | TimeoutError, where: str) -> CallFailure:
    """For a call without a whole reply; `where` is the provider's host and port."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        detail = f"the proxy refused the connection with status {error.status}"
        return _lost("connection", detail, ambiguous=False)
    if isinstance(error, aiohttp.ClientConnectorError):
        role = "the proxy " if isinstance(error, aiohttp.ClientProxyConnectionError) else ""
        detail = describe_connection_error(error.os_error, f"{role}{error.host}:{error.port}")
        return _lost("connection", detail, ambiguous=False)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return _lost("connection", describe_connection_error(TimeoutError(), where), ambiguous=False)
    if isinstance(error, TimeoutError):
        return _lost("timeout", f"no answer from {where} in time", ambiguous=True)
    if isinstance(error, aiohttp.InvalidURL):
        fatal = Fatal("Grok cannot be asked", "its address is not a valid URL", "check GROK_BASE_URL")
        return CallFailure(fatal, "client")
    return _lost("connection", f"the connection to {where} broke off ({type(error).__name__})", ambiguous=True)


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


def _passing(status: int, wait_s: float | None, body: bytes) -> CallFailure:
    error = Retryable(f"the provider answered with status {status}", retry_after_s=wait_s)
    error_class: ErrorClass = "rate_limited" if status == 429 else "timeout" if status == 408 else "server"
    ambiguous = status in _LOST_REPLY
    return CallFailure(error, error_class, ambiguous=ambiguous, trips_breaker=True, status=status, body=body)


def _lost(error_class: ErrorClass, detail: str, *, ambiguous: bool) -> CallFailure:
    return CallFailure(Retryable(detail), error_class, ambiguous=ambiguous, trips_breaker=True)


def _refused(detail: str, status: int) -> CallFailure:
    return CallFailure(Unprocessable(DeadLetterReason.REFUSED, detail), "client", status=status)


def _fatal(status: int, hint: str) -> CallFailure:
    error_class: ErrorClass = "auth" if status in (400, 401, 402, 403) else "client"
    return CallFailure(Fatal("Grok cannot be asked", f"it answered with status {status}", hint), error_class)
