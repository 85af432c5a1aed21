"""The body of a paid call, which leaves only as long as this worker may pay."""

from collections.abc import Awaitable, Callable

from aiohttp import BytesPayload
from aiohttp.abc import AbstractStreamWriter

from schemas.errors import InsightsError


class PaidBody(BytesPayload):
    """Awaits `may_pay` in the very step that hands the request to the socket, headers included.

    Between an earlier question and that step aiohttp connects and starts a task. A worker that is frozen right there
    and let go on long after would ask about a text that is another worker's by then.
    """

    def __init__(self, body: bytes, may_pay: Callable[[], Awaitable[None]]) -> None:
        super().__init__(body, content_type="application/json")
        self._may_pay = may_pay
        #: What `may_pay` raised: aiohttp tells of a broken connection instead.
        self.refusal: InsightsError | None = None

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Raises what `may_pay` raises, with nothing sent."""
        try:
            await self._may_pay()
        except InsightsError as error:
            self.refusal = error
            raise
        await super().write_with_length(writer, content_length)
