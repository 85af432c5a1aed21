"""FastStream on aiokafka: `max_workers` for calls side by side, a pydantic model, uvloop.

With `max_workers` FastStream commits a record before it is worked on (AckPolicy.ACK_FIRST): at most once. Its policies
that commit afterwards work on one record at a time in each partition, or wait for the slowest of a batch.
"""

import uvloop
from aiokafka import ConsumerRecord
from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker, KafkaMessage
from pydantic import BaseModel

from tests.bench.candidates import work

#: The default logger writes two lines for each record.
broker = KafkaBroker(work.BOOTSTRAP_SERVERS, logger=None, enable_idempotence=True, linger_ms=5)
app = FastStream(broker, logger=None)
_analyst: list[work.Analyst] = []


class Conversation(BaseModel):
    id: str
    text: str


@app.on_startup
async def open_analyst() -> None:
    _analyst.append(work.Analyst())


@broker.subscriber(
    work.CONVERSATIONS,
    group_id=work.GROUP,
    auto_offset_reset="earliest",
    max_workers=work.MAX_IN_FLIGHT,
    ack_policy=AckPolicy.ACK_FIRST,
)
async def analyse(body: Conversation, message: KafkaMessage) -> None:
    record = message.raw_message
    assert isinstance(record, ConsumerRecord)
    conversation = work.Conversation(body.id, body.text)
    row = await _analyst[0].analyse(conversation, (record.partition, record.offset, record.timestamp))
    headers = {name: value.decode() for name, value in work.event_headers(row)}
    await broker.publish(work.encode(row), work.INSIGHTS, key=row.conversation_id.encode(), headers=headers)


if __name__ == "__main__":
    uvloop.run(app.run())
