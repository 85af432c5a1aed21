"""Dead letters into the topic `conversations.dlq`: the original record with the reason in its headers."""

from schemas.dead_letter import DeadLetter
from schemas.topics import Topic
from streams.sinks.producer import ConfirmedProducer


class DeadLetterSink:
    """Keyed by conversation id where one could be read, else by the original key."""

    def __init__(self, producer: ConfirmedProducer) -> None:
        self._producer = producer

    async def send(self, letter: DeadLetter, conversation_id: str | None) -> None:
        """Returns when the brokers have it. Raises Retryable."""
        key = letter.key if conversation_id is None else conversation_id.encode()
        # A record of neither key nor value cannot be produced, though a foreign producer may have made one.
        value = b"" if key is None and letter.value is None else letter.value
        await self._producer.send(Topic.DEAD_LETTERS, key=key, value=value, headers=letter.headers_out())
