"""One handler a route, a few lines each: read the request, call a part, answer."""

from datetime import UTC, datetime
from uuid import uuid4

import msgspec
from aiohttp import web

from schemas.conversation import MAX_ID_CHARS, decode_conversation
from schemas.errors import Rejected
from schemas.kafka import DEFAULT_TENANT, Header
from streams.gateway.body import read_json_body
from streams.gateway.cursor import cursor_after, decode_cursor
from streams.gateway.filters import CONDITIONS, read_filter, storable_text
from streams.gateway.insight_record import ConversationState
from streams.gateway.parts import PARTS
from streams.gateway.record import conversation_record
from streams.gateway.responses import json_response, problem

DEFAULT_PAGE = 50
MAX_PAGE = 500
LIST_PARAMETERS = frozenset(CONDITIONS) | {"limit", "cursor"}


async def accept_conversation(request: web.Request) -> web.Response:
    """202 only when the broker has confirmed the record."""
    conversation = decode_conversation(await read_json_body(request), require_id=False)
    if conversation.id is None:
        conversation = msgspec.structs.replace(conversation, id=uuid4().hex)
    traceparent = request.headers.get(Header.TRACEPARENT)
    record = conversation_record(conversation, DEFAULT_TENANT, datetime.now(UTC), traceparent)
    await request.app[PARTS].publisher.publish(record)
    return json_response({"id": conversation.id, "status": "accepted"}, 202)


async def show_conversation(request: web.Request) -> web.Response:
    """An id that was accepted and one that never was look the same until the analysis is done."""
    conversation_id = storable_text("id", request.match_info["id"], MAX_ID_CHARS)
    found = await request.app[PARTS].reader.conversation(DEFAULT_TENANT, conversation_id)
    if found is None:
        return problem(404, "unknown_or_pending", "there is no result for this id, or not yet")
    return json_response(ConversationState(found.id, found.outcome, found.insight, found.reason))


async def list_insights(request: web.Request) -> web.Response:
    """A page, newest first; `next_cursor` is null on the last one."""
    query = _single_values(request)
    limit = _limit(query.get("limit", str(DEFAULT_PAGE)))
    after = decode_cursor(query["cursor"]) if "cursor" in query else None
    # One more than asked for tells whether another page follows.
    found = await request.app[PARTS].reader.insights(DEFAULT_TENANT, read_filter(query), after, limit + 1)
    page, more = found[:limit], len(found) > limit
    next_cursor = cursor_after(page[-1].occurred_at, page[-1].id) if more else None
    return json_response({"items": page, "next_cursor": next_cursor})


def _single_values(request: web.Request) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in LIST_PARAMETERS:
            shown = name if name.isidentifier() and len(name) <= 64 else "?"
            raise Rejected("unknown_parameter", "there is no such parameter", field=shown, status=400)
        if name in values:
            raise Rejected("invalid_parameter", "this parameter can be given once", field=name, status=400)
        values[name] = value
    return values


def _limit(value: str) -> int:
    if value.isascii() and value.isdigit() and len(value) <= 3 and 1 <= int(value) <= MAX_PAGE:
        return int(value)
    raise Rejected("invalid_parameter", f"1 to {MAX_PAGE} is possible", field="limit", status=400)
