"""The handlers of the HTTP API, which respond with JSON or a problem (RFC 9457)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import msgspec
from aiohttp import hdrs, web

from schemas.conversation import MAX_ID_CHARS, MAX_VALUE_BYTES, decode_conversation
from schemas.errors import Rejected
from schemas.insight import Insight
from schemas.kafka import DEFAULT_TENANT, Header
from schemas.outcome import OutcomeName
from streams.gateway import insights
from streams.gateway.accepted import RecentlyAccepted
from streams.gateway.publisher import KafkaPublisher, conversation_record
from streams.gateway.rate_limit import RateLimiter
from streams.kafka.lag import Lag, LagCheck
from streams.telemetry.health import HEADERS, OK, Health

CONVERSATIONS_PATH = "/api/v1/conversations"
INSIGHTS_PATH = "/api/v1/insights"
DEFAULT_PAGE = 50
MAX_PAGE = 500
#: A client that waits for a result asks again after as long as the conversation has been pending, within these bounds.
MIN_POLL_S, MAX_POLL_S = 1, 30
TOO_LARGE = f"the body is larger than {MAX_VALUE_BYTES} bytes"
LIST_PARAMETERS = frozenset(insights.CONDITIONS) | {"limit", "cursor"}
JSON_HEADERS = {**HEADERS, "Content-Type": "application/json"}
PROBLEM_HEADERS = {**HEADERS, "Content-Type": "application/problem+json"}
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What the handlers need. The caller starts and closes everything; `clock` returns monotonic seconds."""

    publisher: KafkaPublisher
    reader: insights.PostgresInsightReader
    limiter: RateLimiter
    health: Health
    lag: LagCheck
    lag_soft_s: float
    clock: Callable[[], float]
    accepted: RecentlyAccepted = field(default_factory=RecentlyAccepted)


DEPENDENCIES = web.AppKey("DEPENDENCIES", Dependencies)


class ConversationState(msgspec.Struct, frozen=True, omit_defaults=True):
    """The response to a request for one conversation."""

    id: str
    outcome: OutcomeName
    insight: Insight | None = None
    reason: str | None = None
    repairs: tuple[str, ...] = ()


async def accept_conversation(request: web.Request) -> web.Response:
    """Responds with 202 once the brokers have confirmed the record; `Location` is where its result will be."""
    conversation, repairs = decode_conversation(await _read_json_body(request), from_topic=False)
    conversation_id = conversation.id or uuid4().hex
    if conversation.id is None:
        conversation = msgspec.structs.replace(conversation, id=conversation_id)
    traceparent = request.headers.get(Header.TRACEPARENT)
    record = conversation_record(conversation, DEFAULT_TENANT, datetime.now(UTC), traceparent, repairs)
    dependencies = request.app[DEPENDENCIES]
    await dependencies.publisher.publish(record)
    dependencies.accepted.add(DEFAULT_TENANT, conversation_id, datetime.now(UTC))
    location = f"{CONVERSATIONS_PATH}/{quote(conversation_id, safe='')}"
    return json_response({"id": conversation_id, "status": "accepted"}, 202, {"Location": location})


async def show_conversation(request: web.Request) -> web.Response:
    """Responds with the outcome; before there is one, with 404 and what this gateway knows about the conversation."""
    dependencies = request.app[DEPENDENCIES]
    conversation_id = insights.storable_text("id", request.match_info["id"], MAX_ID_CHARS)
    found = await dependencies.reader.conversation(DEFAULT_TENANT, conversation_id)
    if found is not None:
        return json_response(ConversationState(found.id, found.outcome, found.insight, found.reason, found.repairs))
    now = datetime.now(UTC)
    accepted_at = dependencies.accepted.accepted_at(DEFAULT_TENANT, conversation_id, now)
    return _unknown() if accepted_at is None else _pending(accepted_at, now)


def _unknown() -> web.Response:
    detail = "the ID is unknown, or the conversation was accepted elsewhere or long ago and is not processed yet"
    return problem(404, "unknown_or_pending", detail)


def _pending(accepted_at: datetime, now: datetime) -> web.Response:
    pending_s = math.ceil((now - accepted_at).total_seconds())
    return problem(
        404,
        "unknown_or_pending",
        "this gateway accepted the conversation, and it is not processed yet",
        members={"pending_since": accepted_at},
        headers={"Retry-After": str(min(max(pending_s, MIN_POLL_S), MAX_POLL_S))},
    )


async def list_insights(request: web.Request) -> web.Response:
    """Responds with a page of insights, newest first; `next_cursor` is null on the last page."""
    query = _single_values(request)
    limit = _page_limit(query.get("limit", str(DEFAULT_PAGE)))
    after = insights.decode_cursor(query["cursor"]) if "cursor" in query else None
    # One more than requested shows whether another page follows.
    found = await request.app[DEPENDENCIES].reader.insights(
        DEFAULT_TENANT, insights.parse_filter(query), after, limit + 1
    )
    page, has_more = found[:limit], len(found) > limit
    next_cursor = insights.Cursor(page[-1].occurred_at, page[-1].id).encode() if has_more else None
    return json_response({"items": page, "next_cursor": next_cursor})


async def show_health(request: web.Request) -> web.Response:
    """Responds with 200 even when degraded; the body names the checks that fail."""
    dependencies = request.app[DEPENDENCIES]
    checks = await dependencies.health.report()
    lag, lag_soft_s = dependencies.lag.latest, dependencies.lag_soft_s
    if lag is not None:
        checks["worker"] = _worker_state(lag)
        if lag.seconds > lag_soft_s:
            checks["lag"] = f"the oldest unfinished record is {lag.seconds:.0f} s old, the limit is {lag_soft_s:g} s"
    body = {
        "status": OK if all(state == OK for state in checks.values()) else "degraded",
        "lag_records": lag.records if lag else None,
        "lag_seconds": round(lag.seconds, 3) if lag else None,
        "worker_running": lag.worker_running if lag else False,
        "checks": checks,
    }
    return json_response(body)


def _worker_state(lag: Lag) -> str:
    if not lag.worker_running:
        return "no worker is in the consumer group"
    if not lag.equal_partitions:
        return "the input topics differ in their number of partitions, so no worker reads: grok-insights topics --grow"
    if lag.halted:
        return f"{lag.halted} of {lag.members} workers have halted: too many dead letters; see grok-insights dlq list"
    return OK


async def _read_json_body(request: web.Request) -> bytes:
    """Returns the raw body. Raises Rejected with 415 (not JSON, not UTF-8, compressed) or 413.

    Stops reading at the limit. aiohttp then discards the rest for a while, so that the client gets the response instead
    of a connection reset.
    """
    _check_content_type(request)
    if request.content_length is not None and request.content_length > MAX_VALUE_BYTES:
        raise Rejected("too_large", TOO_LARGE, status=413)
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise Rejected("too_large", TOO_LARGE, status=413) from error


def _check_content_type(request: web.BaseRequest) -> None:
    """Raises Rejected (415) unless the headers announce uncompressed JSON in UTF-8."""
    if request.headers.get(hdrs.CONTENT_TYPE) != "application/json" and not _is_json(request):
        detail = "the content type must be application/json in UTF-8"
        raise Rejected("unsupported_media_type", detail, field="content-type", status=415)
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        detail = "compressed bodies are not supported"
        raise Rejected("unsupported_encoding", detail, field="content-encoding", status=415)


def _is_json(request: web.BaseRequest) -> bool:
    media_type = request.content_type
    is_json_type = media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )
    return is_json_type and (request.charset or "utf-8").lower() in ("utf-8", "utf8")


def _single_values(request: web.Request) -> dict[str, str]:
    """Returns the query parameters. Raises Rejected (400) for an unknown or repeated one."""
    values: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in LIST_PARAMETERS:
            shown = name if name.isidentifier() and len(name) <= 64 else "?"
            raise Rejected("unknown_parameter", "this parameter does not exist", field=shown, status=400)
        if name in values:
            raise Rejected("invalid_parameter", "this parameter may be given only once", field=name, status=400)
        values[name] = value
    return values


def _page_limit(value: str) -> int:
    if value.isascii() and value.isdigit() and len(value) <= 3 and 1 <= int(value) <= MAX_PAGE:
        return int(value)
    raise Rejected("invalid_parameter", f"limit must be between 1 and {MAX_PAGE}", field="limit", status=400)


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Returns a response with anything that msgspec can encode."""
    return web.Response(body=_encoder.encode(body), status=status, headers={**JSON_HEADERS, **(headers or {})})


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    field: str = "",
    members: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """Returns a problem response, titled by the status' reason phrase, as RFC 9457 requires for about:blank.

    `members` are added to its body.
    """
    title = HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code, **(members or {})}
    if field:
        body["field"] = field
    return web.Response(body=_encoder.encode(body), status=status, headers={**PROBLEM_HEADERS, **(headers or {})})
