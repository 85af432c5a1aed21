"""A minimal gateway: an aiohttp handler that responds with 202 when all in-sync replicas have the record."""

import os
from collections.abc import AsyncIterator

import msgspec
import uvloop
from aiohttp import web
from aiokafka import AIOKafkaProducer

from tests.bench.candidates import work

_PRODUCER = web.AppKey("producer", AIOKafkaProducer)


async def accept(request: web.Request) -> web.Response:
    body = await request.read()
    try:
        conversation = work.decode_conversation(body)
    except msgspec.DecodeError as error:
        return web.json_response({"code": "invalid", "detail": str(error)}, status=400)
    key = work.text_key(conversation.text).encode()
    await request.app[_PRODUCER].send_and_wait(work.CONVERSATIONS, body, key=key)
    answer = work.encode({"id": conversation.id, "status": "accepted"})
    return web.Response(body=answer, status=202, content_type="application/json")


async def connect(application: web.Application) -> AsyncIterator[None]:
    producer = AIOKafkaProducer(bootstrap_servers=work.BOOTSTRAP_SERVERS, acks="all", enable_idempotence=True)
    async with producer:
        application[_PRODUCER] = producer
        yield


if __name__ == "__main__":
    application = web.Application()
    application.router.add_post("/api/v1/conversations", accept)
    application.cleanup_ctx.append(connect)
    port = int(os.environ["GATEWAY_PORT"])
    loop = uvloop.new_event_loop()
    web.run_app(application, host="127.0.0.1", port=port, access_log=None, print=None, loop=loop)
