"""The recipe's answer cache on one shard of the table `answers`: changelog first, then the local copy."""

import msgspec

from schemas.errors import Fatal
from schemas.insight import Answer
from streams.pipeline.answers_table import AnswersStore
from streams.pipeline.attempts import AssignmentOver
from streams.sinks.producer import ConfirmedProducer

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Answer)


class ShardCache:
    """The cache of one partition; see agents.cache.AnswerCache for the promises."""

    def __init__(self, store: AnswersStore, producer: ConfirmedProducer, changelog: str, partition: int) -> None:
        self._store = store
        self._producer = producer
        self._changelog = changelog
        self._partition = partition

    def get(self, key: str) -> Answer | None:
        """The stored answer; one of an older shape counts as none. Raises AssignmentOver when the shard is not ours."""
        try:
            value = self._store.read(self._partition, key.encode())
        except LookupError as error:
            raise AssignmentOver("the partition is not assigned to this worker") from error
        try:
            return None if value is None else _decoder.decode(value)
        except msgspec.DecodeError:
            return None

    async def put(self, key: str, answer: Answer) -> None:
        """Returns when the changelog has the answer, so that whoever takes the partition over has it too.

        The local copy comes second: if it came first and the changelog failed, a retry would take the answer for kept.
        Raises Retryable when the changelog does not take it now, Fatal when the local copy cannot be written.
        """
        value = _encoder.encode(answer)
        stands_at = await self._producer.send(
            self._changelog, key=key.encode(), value=value, headers=[], partition=self._partition
        )
        try:
            self._store.write(self._partition, key.encode(), value, stands_at.offset)
        except LookupError:
            return  # the partition was taken away meanwhile; the changelog, which its next owner reads, has the answer
        except Exception as error:  # rocksdict raises bare Exceptions
            hint = "look at the space and the rights of DATA_DIR"
            raise Fatal("the answers table cannot be written", type(error).__name__, hint) from error
