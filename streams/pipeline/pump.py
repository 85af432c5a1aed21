"""Takes records from Faust in order, each once per assignment, and keeps a bounded number of them in work."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from faust.events import Event
from faust.streams import Stream

from schemas.kafka import Origin
from streams.pipeline.assignment import Assignment
from streams.pipeline.offsets import Slot, Tracker, Verdict
from streams.pipeline.reading import Reading
from streams.pipeline.record import Record, read_record

Handle = Callable[[Record, Callable[[], bool]], Awaitable[bool]]


class Pump:
    """`handle(record, is_alive)` retries by itself while alive; True means that the record's work is durable."""

    def __init__(
        self,
        assignment: Assignment,
        reading: Reading,
        handle: Handle,
        rehomed_topic: str,
        *,
        max_in_flight: int,
        fail: Callable[[BaseException], None],
    ) -> None:
        self._assignment = assignment
        self._reading = reading
        self._handle = handle
        self._rehomed_topic = rehomed_topic
        self._free = asyncio.Semaphore(max_in_flight)
        self._fail = fail
        #: Records that have come so far, repeats included.
        self.taken = 0

    @property
    def is_full(self) -> bool:
        """Whether what comes has to wait for a slot."""
        return self._free.locked()

    async def run(self, stream: Stream[bytes]) -> None:
        """Reads the stream until it ends. Nothing is acked to Faust: its commits would pass unfinished records.

        An error of the reading itself ends the worker: Faust would start the agent anew and tell nobody.
        """
        try:
            async for event in stream.noack().events():
                self.taken += 1
                await self._take(event)
                if self._assignment.is_halted:
                    await _until_cancelled()
        except Exception as error:
            self._fail(error)
            raise

    async def _take(self, event: Event) -> None:
        tracker = await self._tracker_of(event)
        if tracker is None or not await self._is_next(tracker, event):
            return
        slot = tracker.admit(event.message.offset, event.message.timestamp or 0.0)
        await self._free.acquire()
        if tracker.dead or not self._assignment.is_open:
            self._free.release()
            return
        task = self._assignment.spawn(self._work(event, tracker, slot))
        task.add_done_callback(lambda task: self._ended(task, tracker))

    async def _work(self, event: Event, tracker: Tracker, slot: Slot) -> None:
        if await self._handle(_record_of(event, self._rehomed_topic), lambda: not tracker.dead):
            tracker.finish(slot)

    def _ended(self, task: "asyncio.Task[None]", tracker: Tracker) -> None:
        """A slot whose work broke off would hold its partition for ever, unseen: the worker ends and reads it again.

        Only the end of an assignment may cancel it."""
        self._free.release()
        if task.cancelled():
            if not (tracker.dead or self._assignment.is_ending):
                self._fail(RuntimeError("a record's work was cancelled"))
        elif (error := task.exception()) is not None:
            self._fail(error)

    async def _tracker_of(self, event: Event) -> Tracker | None:
        """The tracker of the event's assignment, or None when that assignment is over."""
        return await self._reading.tracker((event.message.tp, event.message.generation_id or 0))

    async def _is_next(self, tracker: Tracker, event: Event) -> bool:
        """True for the record to admit. A jump is believed only if the log has the same hole; else it is read again."""
        tp, offset = event.message.tp, event.message.offset
        verdict = tracker.judge(offset)
        if verdict is Verdict.JUMP:
            await self._reading.look_for_a_hole(tracker, tp)
            verdict = tracker.judge(offset)
        if verdict is Verdict.JUMP and not tracker.dead:
            await self._reading.again(tracker, tp)
        return verdict is Verdict.NEXT and not tracker.dead


async def _until_cancelled() -> None:
    """A stream that nobody reads fills its buffer, and then Faust fetches nothing more."""
    await asyncio.Event().wait()


def _record_of(event: Event, rehomed_topic: str) -> Record:
    message = event.message
    return read_record(
        Origin(message.topic, message.partition, message.offset),
        key=message.key,
        value=message.value,
        headers=cast(list[tuple[str, bytes]], message.headers),  # a mapping only where the sender is Faust
        timestamp_s=message.timestamp,
        is_rehomed=message.topic == rehomed_topic,
    )
