"""How the stand-in replies over HTTP: whole, in pieces, cut off half-way, or as an error."""

import asyncio

import orjson
from aiohttp import web

from streams.standin.answers import Completion
from streams.standin.faults import FaultKind, FaultPlan

_ERRORS = {
    FaultKind.HTTP_429: (429, "resource_exhausted", "Too many requests."),
    FaultKind.HTTP_500: (500, "internal", "An internal error occurred."),
    FaultKind.VIOLATION_403: (403, "permission_denied", "Content violates usage guidelines."),
}
#: Faults that are replied to with an error status, without an answer being made.
ERROR_STATUS = frozenset(_ERRORS)


def as_json(value: object, status: int = 200) -> web.Response:
    """A reply with a JSON body."""
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")


def error(status: int, code: str, detail: str) -> web.Response:
    """An error as the provider words it."""
    return as_json({"code": code, "error": detail}, status)


def failure(fault: FaultKind, plan: FaultPlan) -> web.Response:
    """The error of a fault of ERROR_STATUS."""
    response = error(*_ERRORS[fault])
    if fault is FaultKind.HTTP_429:
        response.headers["Retry-After"] = str(plan.retry_after_s)
    return response


def answer(completion: Completion) -> web.Response:
    """The answer, to be sent whole."""
    return web.Response(body=completion.body, content_type="application/json")


async def stream(
    request: web.Request, completion: Completion, pieces: int, stop_after: int, pause_s: float
) -> web.StreamResponse:
    """Sends the first `stop_after` of so many pieces of the reply, with a pause after each."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.content_length = len(completion.body)
    await response.prepare(request)
    size = -(-len(completion.body) // pieces)
    for start in range(0, size * stop_after, size):
        await response.write(completion.body[start : start + size])
        await asyncio.sleep(pause_s)
    return response


async def send(request: web.Request, response: web.StreamResponse) -> None:
    """Sends what is not sent yet. Raises ConnectionError when the client is gone."""
    await response.prepare(request)
    await response.write_eof()


def cut(request: web.Request) -> web.Response:
    """Resets the connection; the response that the server insists on goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
