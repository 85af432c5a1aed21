"""FastAPI on uvicorn with uvloop and httptools: a pydantic model, and 202 when all in-sync replicas have the record."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from aiokafka import AIOKafkaProducer
from fastapi import FastAPI, Request
from pydantic import BaseModel

from tests.bench.candidates import work


class Conversation(BaseModel):
    id: str
    text: str


class Accepted(BaseModel):
    id: str
    status: str = "accepted"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    producer = AIOKafkaProducer(bootstrap_servers=work.BOOTSTRAP_SERVERS, acks="all", enable_idempotence=True)
    async with producer:
        app.state.producer = producer
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/api/v1/conversations", status_code=202)
async def accept(conversation: Conversation, request: Request) -> Accepted:
    key = work.text_key(conversation.text).encode()
    value = conversation.model_dump_json().encode()
    await request.app.state.producer.send_and_wait(work.CONVERSATIONS, value, key=key)
    return Accepted(id=conversation.id)


if __name__ == "__main__":
    port = int(os.environ["GATEWAY_PORT"])
    uvicorn.run(app, port=port, loop="uvloop", http="httptools", access_log=False, log_level="warning")
