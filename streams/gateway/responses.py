"""HTTP responses: JSON, and application/problem+json (RFC 9457) with a stable `code`."""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from schemas.errors import Rejected
from streams.gateway.insights import DatabaseUnavailable
from streams.gateway.publisher import BrokerUnavailable
from streams.telemetry.health import HEADERS

JSON_HEADERS = {**HEADERS, "Content-Type": "application/json"}
PROBLEM_HEADERS = {**HEADERS, "Content-Type": "application/problem+json"}
#: Codes for errors that aiohttp raises itself; other statuses use their reason phrase as the code.
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 417: "expectation_failed"}

_encoder = msgspec.json.Encoder()


def json_response(body: Any, status: int = 200) -> web.Response:
    """Returns a response with anything that msgspec can encode."""
    return web.Response(body=_encoder.encode(body), status=status, headers=JSON_HEADERS)


def problem(
    status: int, code: str, detail: str, *, field: str = "", headers: Mapping[str, str] | None = None
) -> web.Response:
    """Returns a problem response, titled by the status' reason phrase, as RFC 9457 requires for about:blank."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, "code": code}
    if field:
        body["field"] = field
    return web.Response(body=_encoder.encode(body), status=status, headers={**PROBLEM_HEADERS, **(headers or {})})


def problem_for(error: Exception) -> web.Response | None:
    """Returns the response to an expected error, None for a defect."""
    match error:
        case Rejected():
            return problem(error.status, error.code, error.detail, field=error.field)
        case BrokerUnavailable():
            return _unavailable("broker_unavailable", error)
        case DatabaseUnavailable():
            return _unavailable("database_unavailable", error)
        case web.RequestPayloadError():
            return problem(400, "malformed_body", "the body does not match its framing headers")
        case ConnectionError():
            # The client has gone and does not read this; it keeps the disconnect from being logged as a defect.
            return problem(400, "incomplete_body", "the connection was closed before the body was complete")
        case web.HTTPException() if error.status >= 400:
            phrase = HTTPStatus(error.status).phrase
            code = _CODES.get(error.status, phrase.lower().replace(" ", "_").replace("-", "_"))
            allow = error.headers.get("Allow")
            return problem(error.status, code, phrase, headers={"Allow": allow} if allow else None)
    return None


def too_many_requests(wait_s: float, limit_per_minute: int) -> web.Response:
    """Returns the 429 response to a client over its rate limit."""
    detail = f"more than {limit_per_minute} requests per minute from this address"
    return problem(429, "rate_limited", detail, headers=_retry_after(wait_s))


def _unavailable(code: str, error: BrokerUnavailable | DatabaseUnavailable) -> web.Response:
    return problem(503, code, error.detail, headers=_retry_after(error.retry_after_s or 1.0))


def _retry_after(wait_s: float) -> dict[str, str]:
    """Rounds up to whole seconds, so that a client that honours it never retries early."""
    return {"Retry-After": str(max(1, math.ceil(wait_s)))}
