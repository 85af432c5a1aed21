"""aiokafka by hand: what a consumer for exactly this job costs, and so the practical limit.

Takes whole fetches, keeps answers in a dictionary, asks with a fixed number of tasks, writes rows in batches, confirms
events in batches, and commits the end of the unbroken run of finished records. It lacks what a service needs: answers
are lost with the process, there are no retries and no dead letters, and a second process asks about the same texts.
"""

import asyncio
import signal
from collections import deque
from collections.abc import Iterable

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition

from tests.bench.candidates import work

_COMMIT_EVERY_S = 0.3
_MAX_OPEN = 2 * work.MAX_IN_FLIGHT + 1_000


class Item:
    """A record that is being worked on."""

    __slots__ = ("answer", "conversation", "is_cached", "is_done", "key", "record")

    def __init__(self, record: ConsumerRecord) -> None:
        self.record, self.is_done, self.is_cached = record, False, True
        self.conversation = work.decode_conversation(record.value)
        self.key = work.text_key(self.conversation.text)
        self.answer: work.Answer | None = None

    def row(self) -> work.Row:
        assert self.answer is not None
        place = (self.record.partition, self.record.offset, self.record.timestamp)
        return work.row_of(self.key, self.conversation.id, self.answer, self.is_cached, place)


class Consumer(ConsumerRebalanceListener):
    """One process of the group."""

    def __init__(self, kafka: AIOKafkaConsumer, producer: AIOKafkaProducer) -> None:
        self._kafka, self._producer, self._grok = kafka, producer, work.Grok()
        #: Records in the order of their offsets, from the oldest that is not finished.
        self._open: dict[TopicPartition, deque[Item]] = {}
        #: The answer, or those that wait for it.
        self._answers: dict[str, work.Answer | list[Item]] = {}
        self._to_ask: asyncio.Queue[Item] = asyncio.Queue()
        self._to_write: deque[Item] = deque()
        self._has_rows = asyncio.Event()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._commit()
        self._open.clear()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        pass

    async def run(self) -> None:
        """Until cancelled; then commits what is finished."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(work.MAX_IN_FLIGHT):
                    tasks.create_task(self._ask())
                for _ in range(2):
                    tasks.create_task(self._write())
                tasks.create_task(self._keep_committing())
                tasks.create_task(self._consume())
        finally:
            await self._commit()
            await self._grok.close()

    async def _consume(self) -> None:
        while True:
            fetched = await self._kafka.getmany(timeout_ms=200, max_records=1_000)
            for partition, records in fetched.items():
                self._take(self._open.setdefault(partition, deque()), records)
            while sum(map(len, self._open.values())) > _MAX_OPEN:
                await asyncio.sleep(0.002)

    def _take(self, opened: deque[Item], records: list[ConsumerRecord]) -> None:
        for record in records:
            item = Item(record)
            opened.append(item)
            known = self._answers.get(item.key)
            if known is None:
                item.is_cached, self._answers[item.key] = False, [item]
                self._to_ask.put_nowait(item)
            elif isinstance(known, list):
                known.append(item)
            else:
                self._answered([item], known)

    async def _ask(self) -> None:
        while True:
            item = await self._to_ask.get()
            answer = await self._grok.ask(item.conversation.text)
            waiting = self._answers[item.key]
            assert isinstance(waiting, list)
            self._answers[item.key] = answer
            self._answered(waiting, answer)

    def _answered(self, items: list[Item], answer: work.Answer) -> None:
        for item in items:
            item.answer = answer
        self._to_write.extend(items)
        self._has_rows.set()

    async def _write(self) -> None:
        connection = await work.connect_to_postgres()
        while True:
            await self._has_rows.wait()
            count = min(len(self._to_write), work.MAX_BATCH_ROWS)
            items = [self._to_write.popleft() for _ in range(count)]
            if not self._to_write:
                self._has_rows.clear()
            rows = [item.row() for item in items]
            await work.write_rows(connection, rows)
            await self._announce(rows)
            for item in items:
                item.is_done = True
            for opened in self._open.values():
                while len(opened) > 1 and opened[0].is_done and opened[1].is_done:
                    opened.popleft()  # the last one that is done stays: its offset is to be committed

    async def _announce(self, rows: list[work.Row]) -> None:
        send = self._producer.send
        sent = [
            await send(
                work.INSIGHTS, work.encode(row), key=row.conversation_id.encode(), headers=work.event_headers(row)
            )
            for row in rows
        ]
        await asyncio.gather(*sent)

    async def _keep_committing(self) -> None:
        while True:
            await asyncio.sleep(_COMMIT_EVERY_S)
            await self._commit()

    async def _commit(self) -> None:
        finished = {tp: items[0].record.offset + 1 for tp, items in self._open.items() if items and items[0].is_done}
        if finished:
            await self._kafka.commit(finished)


async def main() -> None:
    kafka = AIOKafkaConsumer(
        bootstrap_servers=work.BOOTSTRAP_SERVERS,
        group_id=work.GROUP,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=work.BOOTSTRAP_SERVERS, enable_idempotence=True, linger_ms=5, max_batch_size=256 * 1024
    )
    async with producer, kafka:
        consumer = Consumer(kafka, producer)
        kafka.subscribe([work.CONVERSATIONS], listener=consumer)
        running = asyncio.create_task(consumer.run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
        await asyncio.wait([running])
        if not running.cancelled():
            running.result()


if __name__ == "__main__":
    uvloop.run(main())
