"""Faust's consumer with its own positions out of the way and commit errors survived (infra/adr/0002)."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, cast

import structlog
from aiokafka.errors import KafkaError
from faust.transport.consumer import ensure_TP
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer
from faust.types import TP

from streams.pipeline.consumer_thread import GroupApp, OwnOffsetsThread

log = structlog.get_logger()


class _NoPositions(dict[TP, int | None]):
    """Faust's notion of what was read, switched off: it drops and acks records by it, and it can undo a seek."""

    def __getitem__(self, key: TP) -> None:
        return None

    def __setitem__(self, key: TP, value: int | None) -> None:
        pass

    def update(self, *args: Any, **kwargs: Any) -> None:
        pass


class OwnOffsetsConsumer(Consumer):
    """Fetches and joins the group as Faust does; tells nothing of its own about offsets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = _NoPositions()

    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return OwnOffsetsThread(self, loop=self.loop, beacon=self.beacon)

    # A recovery that read records ends with the fetcher at work, and two of Faust's steps then lose what it brings.
    # Only a later record in the partition would show the hole, and there may be none for hours.

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Lets nothing into the streams until Faust resumes their flow, which is next: it empties their queues then."""
        self.app.flow_control.suspend()
        super().resume_partitions(tps)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Also to the begin where nothing is committed yet, which aiokafka leaves out: while every partition is paused,
        a fetch under way takes from all of them, and Faust drops it."""
        committed: Mapping[TP, int] = await super().seek_to_committed()
        at_begin = [tp for tp, offset in committed.items() if not offset and not self._is_changelog_tp(ensure_TP(tp))]
        try:
            begins = await self.earliest_offsets(*at_begin)
            thread = cast(OwnOffsetsThread, self._thread)
            await thread.call_thread(thread.seek_each, begins)
        except KafkaError as error:  # the pump seeks what is missing; Faust would end its recovery, and so the app
            log.warning("begin_not_sought", error=type(error).__name__, partitions=len(at_begin))
        return committed

    async def _seek(self, partition: TP, offset: int) -> None:
        """Where the fetcher runs; see OwnOffsetsThread.seek_each."""
        thread = cast(OwnOffsetsThread, self._thread)
        await thread.call_thread(thread.seek_each, {partition: offset})

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """Where the changelogs end, by the log reader: recovery must not stop before the last batch, as Faust's own
        question would on Tansu (see LogReader.ends)."""
        return await cast(GroupApp, self.app).log_ends(partitions)

    async def commit_offsets(self, offsets: Mapping[TP, int]) -> Collection[TP]:
        """The partitions whose offsets the broker has taken, as finished in the assignment that is now; those that are
        not assigned here are left out."""
        assigned = self.assignment()
        ours = {tp: offset for tp, offset in offsets.items() if tp in assigned}
        if not ours:
            return ()
        thread, generation = cast(OwnOffsetsThread, self._thread), self.app.consumer_generation_id
        return ours.keys() if await thread.call_thread(thread.commit_as, generation, ours) else ()

    async def handed_out(self, partitions: Collection[TP]) -> Mapping[TP, int]:
        """Up to where Faust was given the records of each partition; see OwnOffsetsThread."""
        thread = cast(OwnOffsetsThread, self._thread)
        return cast(Mapping[TP, int], await thread.call_thread(thread.handed_out, partitions))
