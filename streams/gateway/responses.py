"""What the gateway answers: JSON, and errors as application/problem+json (RFC 9457) with a stable `code`."""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from schemas.errors import Rejected
from streams.gateway.parts import BrokerUnavailable, DatabaseUnavailable
from streams.telemetry.server import HEADERS

JSON_HEADERS = {**HEADERS, "Content-Type": "application/json"}
PROBLEM_HEADERS = {**HEADERS, "Content-Type": "application/problem+json"}
#: Codes for what aiohttp itself refuses; other statuses get their standard phrase as the code.
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 417: "expectation_failed"}

_encoder = msgspec.json.Encoder()


def json_response(body: Any, status: int = 200) -> web.Response:
    """`body` is anything that msgspec encodes."""
    return web.Response(body=_encoder.encode(body), status=status, headers=JSON_HEADERS)


def problem(
    status: int, code: str, detail: str, *, field: str = "", headers: Mapping[str, str] | None = None
) -> web.Response:
    """One problem. `title` is the status' standard phrase, as RFC 9457 asks for with type about:blank."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, "code": code}
    if field:
        body["field"] = field
    return web.Response(body=_encoder.encode(body), status=status, headers={**PROBLEM_HEADERS, **(headers or {})})


def problem_of(error: Exception) -> web.Response | None:
    """The answer to an error that has one; None means a defect of ours."""
    match error:
        case Rejected():
            return problem(error.status, error.code, error.detail, field=error.field)
        case BrokerUnavailable():
            return unavailable("broker_unavailable", error)
        case DatabaseUnavailable():
            return unavailable("database_unavailable", error)
        case web.RequestPayloadError():
            return problem(400, "malformed_body", "the body does not follow its own framing")
        case ConnectionError():
            # Nobody reads this answer; it keeps a client that went away from being logged as a defect.
            return problem(400, "incomplete_body", "the connection ended before the body did")
        case web.HTTPException() if error.status >= 400:
            return _refused_by_aiohttp(error)
    return None


def too_many_requests(wait_s: float, limit_per_minute: int) -> web.Response:
    detail = f"more than {limit_per_minute} requests a minute came from this address"
    return problem(429, "rate_limited", detail, headers=_retry_after(wait_s))


def unavailable(code: str, error: BrokerUnavailable | DatabaseUnavailable) -> web.Response:
    return problem(503, code, error.detail, headers=_retry_after(error.retry_after_s or 1.0))


def internal_error() -> web.Response:
    """Says nothing about the inside; the log has it."""
    return problem(500, "internal_error", "the request could not be handled; it has been logged")


def _retry_after(wait_s: float) -> dict[str, str]:
    """Whole seconds, rounded up: whoever obeys is never too early."""
    return {"Retry-After": str(max(1, math.ceil(wait_s)))}


def _refused_by_aiohttp(error: web.HTTPException) -> web.Response:
    phrase = HTTPStatus(error.status).phrase
    code = _CODES.get(error.status, phrase.lower().replace(" ", "_").replace("-", "_"))
    allow = error.headers.get("Allow")
    return problem(error.status, code, phrase, headers={"Allow": allow} if allow else None)
