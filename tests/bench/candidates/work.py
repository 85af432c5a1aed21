"""The work that every candidate does for a conversation, apart from consuming: what `grok-insights worker` does too.

Decode, text key, one call for each distinct text, a row in `insights` and an event in the topic `insights`. Written
the direct way and as cheaply as msgspec allows, without checks that a benchmark's input cannot fail, so that candidates
differ by how they consume and not by how they parse. Independent of the product's code.
"""

import asyncio
import hashlib
import os
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime

import aiohttp
import asyncpg
import msgspec
from msgspec.structs import asdict

CONVERSATIONS, INSIGHTS, GROUP = "conversations", "insights", "grok-insights"
MAX_BATCH_ROWS = 500

BOOTSTRAP_SERVERS = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "")
MAX_IN_FLIGHT = int(os.environ.get("MAX_IN_FLIGHT", "512"))

#: As large as the worker's request, whose prompt and schema are longer than most conversations.
_SYSTEM_PROMPT = "Analyse one customer conversation and answer with one JSON object. " * 21
_SCHEMA = {"name": "insight", "strict": True, "schema": {"type": "object", "description": "x" * 560}}
_TEXT_MARK = "\x01"


class Conversation(msgspec.Struct):
    """A record's value."""

    id: str
    text: str


class Answer(msgspec.Struct):
    """What the model says about a text."""

    sentiment: str
    sentiment_score: float
    topics: list[str]
    intent: str
    urgency: str
    summary: str
    action_needed: bool
    confidence: float
    language: str


class Row(Answer, kw_only=True):
    """A row of `insights`: fields are columns. As JSON it is also the event's value."""

    tenant: str = "default"
    conversation_id: str
    outcome: str
    reason: str | None = None
    extra: dict[str, str] | None = None
    source: str | None = None
    occurred_at: datetime
    received_at: datetime
    analysed_at: datetime
    text_key: str
    analysis_version: str = "0123456789abcdef"
    model: str = "standin"
    prompt_tokens: int = 460
    completion_tokens: int = 123
    cost_usd_ticks: int = 4_299_500
    origin_topic: str = CONVERSATIONS
    origin_partition: int
    origin_offset: int


class _Message(msgspec.Struct):
    content: str


class _Choice(msgspec.Struct):
    message: _Message


class _Reply(msgspec.Struct):
    choices: list[_Choice]


decode_conversation = msgspec.json.Decoder(Conversation).decode
encode = msgspec.json.Encoder().encode
_decode_reply = msgspec.json.Decoder(_Reply).decode
_decode_answer = msgspec.json.Decoder(Answer).decode

_BODY = encode(
    {
        "model": "standin",
        "messages": [{"role": "system", "content": _SYSTEM_PROMPT}, {"role": "user", "content": _TEXT_MARK}],
        "response_format": {"type": "json_schema", "json_schema": _SCHEMA},
        "temperature": 0,
    }
)
_BODY_HEAD, _BODY_TAIL = _BODY.split(encode(_TEXT_MARK))

_COLUMNS = ", ".join(Row.__struct_fields__)
_EXCLUDED = ", ".join(f"excluded.{name}" for name in Row.__struct_fields__)
_UPSERT = f"""
INSERT INTO insights AS stored ({_COLUMNS})
SELECT {_COLUMNS} FROM json_populate_recordset(NULL::insights, $1::json)
ON CONFLICT (tenant, conversation_id) DO UPDATE SET ({_COLUMNS}) = ({_EXCLUDED})
WHERE excluded.occurred_at > stored.occurred_at
"""  # noqa: S608  column names of ours


def text_key(text: str) -> str:
    """The SHA-256 of tenant and text, as the worker makes it: it decides the partition where equal texts meet."""
    canonical = " ".join(unicodedata.normalize("NFC", text).split())
    return hashlib.sha256(b"7:default:%b" % canonical.encode()).hexdigest()


def row_of(text_key: str, conversation_id: str, answer: Answer, is_cached: bool, place: tuple[int, int, int]) -> Row:
    """`place` is the record's partition, offset and timestamp in milliseconds."""
    partition, offset, timestamp_ms = place
    received_at = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    return Row(
        **asdict(answer),
        conversation_id=conversation_id,
        outcome="cached" if is_cached else "analysed",
        occurred_at=received_at,
        received_at=received_at,
        analysed_at=datetime.now(UTC),
        text_key=text_key,
        origin_partition=partition,
        origin_offset=offset,
    )


def event_headers(row: Row) -> list[tuple[str, bytes]]:
    """CloudEvents' binary mode, as the worker sends it."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", f"{row.tenant}:{row.conversation_id}:{row.occurred_at.isoformat()}".encode()),
        ("ce_type", b"grok-insights.insight"),
        ("ce_source", f"/{row.origin_topic}/{row.origin_partition}/{row.origin_offset}".encode()),
        ("ce_time", row.analysed_at.isoformat().encode()),
        ("content-type", b"application/json"),
        ("tenant", row.tenant.encode()),
    ]


class Grok:
    """Asks the stand-in over keep-alive connections, as many as may be in flight. Open it inside the event loop."""

    def __init__(self) -> None:
        self._url = os.environ["GROK_BASE_URL"] + "/chat/completions"
        headers = {"Authorization": "Bearer bench", "Content-Type": "application/json"}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_IN_FLIGHT), cookie_jar=aiohttp.DummyCookieJar(), headers=headers
        )

    async def ask(self, text: str) -> Answer:
        async with self._session.post(self._url, data=_BODY_HEAD + encode(text) + _BODY_TAIL) as response:
            response.raise_for_status()
            return _decode_answer(_decode_reply(await response.read()).choices[0].message.content)

    async def close(self) -> None:
        await self._session.close()


async def connect_to_postgres() -> asyncpg.Connection:
    return await asyncpg.connect(os.environ["DATABASE_URL"])


async def write_rows(connection: asyncpg.Connection, rows: Sequence[Row]) -> None:
    """One statement, all rows or none of them."""
    await connection.execute(_UPSERT, encode(rows).decode())


class Analyst:
    """For frameworks that hand over one record at a time: `analyse` returns when the record's row is committed."""

    def __init__(self) -> None:
        self._grok = Grok()
        self._answers: dict[str, asyncio.Future[Answer]] = {}
        self._waiting: list[tuple[Row, asyncio.Future[None]]] = []
        self._has_rows = asyncio.Event()
        self._writers = [asyncio.create_task(self._write()) for _ in range(2)]

    async def analyse(self, conversation: Conversation, place: tuple[int, int, int]) -> Row:
        """The row that was written: one call for each distinct text, also for equal texts in flight."""
        key = text_key(conversation.text)
        answer = self._answers.get(key)
        if is_cached := answer is not None:
            found = await answer
        else:
            answer = self._answers[key] = asyncio.get_running_loop().create_future()
            found = await self._grok.ask(conversation.text)
            answer.set_result(found)
        row = row_of(key, conversation.id, found, is_cached, place)
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, written))
        self._has_rows.set()
        await written
        return row

    async def _write(self) -> None:
        connection = await connect_to_postgres()
        while True:
            await self._has_rows.wait()
            batch, self._waiting = self._waiting[:MAX_BATCH_ROWS], self._waiting[MAX_BATCH_ROWS:]
            if not self._waiting:
                self._has_rows.clear()
            if batch:
                await write_rows(connection, [row for row, _ in batch])
                for _, written in batch:
                    written.set_result(None)
