"""A plain Faust agent: `concurrency` for calls side by side, a dictionary as the cache, uvloop as Faust documents it.

Faust commits by itself every few seconds. With concurrency it may commit past a record that is not finished, and it
loses records in rebalances (infra/adr/0002); in a quiet run neither shows.
"""

import sys

import mode.loop.uvloop  # noqa: F401  isort: skip  must come before faust
import faust
from faust.types import StreamT

from tests.bench.candidates import work

app = faust.App(
    work.GROUP,
    broker=f"kafka://{work.BOOTSTRAP_SERVERS}",
    store="memory://",
    topic_disable_leader=True,
    web_enabled=False,
    consumer_auto_offset_reset="earliest",
    producer_linger_ms=5,
)
raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
conversations = app.topic(work.CONVERSATIONS, **raw)
insights = app.topic(work.INSIGHTS, **raw)
_analyst: list[work.Analyst] = []


@app.agent(conversations, concurrency=work.MAX_IN_FLIGHT)
async def analyse(stream: StreamT[bytes]) -> None:
    if not _analyst:
        _analyst.append(work.Analyst())
    async for event in stream.events():
        message = event.message
        place = (message.partition, message.offset, round(1000 * message.timestamp))
        row = await _analyst[0].analyse(work.decode_conversation(event.value), place)
        await insights.send(key=row.conversation_id.encode(), value=work.encode(row), headers=work.event_headers(row))


if __name__ == "__main__":
    sys.exit(faust.Worker(app, loglevel="warning", redirect_stdouts=False).execute_from_commandline())
