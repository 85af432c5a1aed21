"""GET of conversations and insights: found, missing, paged, filtered, refused."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp.test_utils import TestClient
from yarl import URL

from streams.gateway.insights import DatabaseUnavailable
from tests.fakes.gateway import FakeDependencies, insight_record

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


async def _get(client: TestClient, url: str) -> tuple[int, dict[str, Any]]:
    async with client.get(URL(url, encoded=True)) as response:
        return response.status, await response.json(content_type=None)


async def test_a_result_is_shown_by_id(client: TestClient, fakes: FakeDependencies) -> None:
    """An analysed one shows its insight, a filtered one its reason."""
    fakes.reader.rows = [
        ("default", insight_record("c-1")),
        ("default", insight_record("c-2", outcome="filtered", insight=None, reason="too_short")),
    ]
    status, answer = await _get(client, "/api/v1/conversations/c-1")
    assert (status, answer["id"], answer["outcome"], answer["insight"]["urgency"]) == (200, "c-1", "analysed", "high")
    assert await _get(client, "/api/v1/conversations/c-2") == (
        200,
        {"id": "c-2", "outcome": "filtered", "reason": "too_short"},
    )


@pytest.mark.parametrize("conversation_id", ["a/b", "a b", "ä{}", "100%", "?#&+"])
async def test_any_id_can_be_asked_for(client: TestClient, fakes: FakeDependencies, conversation_id: str) -> None:
    """Whatever an id is made of, percent-encoded it finds its conversation."""
    fakes.reader.rows = [("default", insight_record(conversation_id))]
    status, answer = await _get(client, f"/api/v1/conversations/{quote(conversation_id, safe='')}")
    assert (status, answer.get("id")) == (200, conversation_id)


async def test_an_unknown_id_is_unknown_or_pending(client: TestClient, fakes: FakeDependencies) -> None:
    """404, also for an id that another tenant has."""
    fakes.reader.rows = [("other", insight_record("c-1"))]
    status, answer = await _get(client, "/api/v1/conversations/c-1")
    assert (status, answer["code"]) == (404, "unknown_or_pending")


async def test_a_conversation_that_was_accepted_here_is_pending(client: TestClient) -> None:
    """404 says since when, and when to ask again; of another ID this gateway claims nothing."""
    async with client.post("/api/v1/conversations", json={"id": "c-1", "text": "where is my parcel"}) as response:
        location = response.headers["Location"]
    async with client.get(location) as response:
        answer = await response.json(content_type="application/problem+json")
        assert (response.status, answer["code"], response.headers["Retry-After"]) == (404, "unknown_or_pending", "1")
        assert datetime.now(UTC) - datetime.fromisoformat(answer["pending_since"]) < timedelta(minutes=1)
    async with client.get("/api/v1/conversations/c-2") as response:
        assert "Retry-After" not in response.headers
        assert "pending_since" not in await response.json(content_type="application/problem+json")


@pytest.mark.parametrize(("pending", "retry_after"), [(timedelta(seconds=7.5), "8"), (timedelta(minutes=5), "30")])
async def test_a_client_asks_again_after_as_long_as_it_has_waited(
    client: TestClient, fakes: FakeDependencies, pending: timedelta, retry_after: str
) -> None:
    """At most half a minute: a backlog of minutes must not be asked about every second."""
    fakes.dependencies.accepted.add("default", "c-1", datetime.now(UTC) - pending)
    async with client.get("/api/v1/conversations/c-1") as response:
        assert response.headers["Retry-After"] == retry_after


async def test_times_may_be_durations_before_now(client: TestClient, fakes: FakeDependencies) -> None:
    """As for `dlq list`: since=2h."""
    now = datetime.now(UTC)
    fakes.reader.rows = [
        ("default", insight_record(f"{hours}h", occurred_at=now - timedelta(hours=hours))) for hours in (1, 3, 50)
    ]
    _, answer = await _get(client, "/api/v1/insights?since=2d&until=2h")
    assert [item["id"] for item in answer["items"]] == ["3h"]


async def test_pages_cover_everything_once(client: TestClient, fakes: FakeDependencies) -> None:
    """Following next_cursor shows each item once, newest first, equal times by id."""
    fakes.reader.rows = [
        ("default", insight_record(f"c-{n}", occurred_at=NOON + timedelta(minutes=n // 3))) for n in range(10)
    ]
    seen: list[str] = []
    url = "/api/v1/insights?limit=3"
    while url:
        _, answer = await _get(client, url)
        seen += [item["id"] for item in answer["items"]]
        url = f"/api/v1/insights?limit=3&cursor={answer['next_cursor']}" if answer["next_cursor"] else ""
    assert seen == [f"c-{n}" for n in reversed(range(10))]


async def test_items_are_full_records(client: TestClient, fakes: FakeDependencies) -> None:
    """The field names are those of the event in the topic `insights`."""
    fakes.reader.rows = [("default", insight_record("c-1", metadata={"order": 7}, repairs=("text_cut",)))]
    _, answer = await _get(client, "/api/v1/insights")
    [item] = answer["items"]
    assert (answer["next_cursor"], item["metadata"], item["repairs"]) == (None, {"order": 7}, ["text_cut"])
    assert item.keys() == {
        *("id", "outcome", "insight", "source", "occurred_at", "received_at", "analysed_at", "text_key"),
        *("analysis_version", "model", "prompt_tokens", "completion_tokens", "cost_usd_ticks"),
        *("metadata", "repairs"),
    }


async def test_filters_narrow_the_list(client: TestClient, fakes: FakeDependencies) -> None:
    """Each filter is passed on; all must match."""
    fakes.reader.rows = [
        ("default", insight_record("c-1")),
        ("default", insight_record("c-2", source="app")),
        ("default", insight_record("c-3", outcome="cached")),
    ]
    query = "topic=refund&sentiment=negative&urgency=high&source=shop-chat&outcome=analysed&since=2026-01-01T00:00:00Z"
    _, answer = await _get(client, f"/api/v1/insights?{query}&until=2026-02-01T00:00:00%2B01:00")
    assert [item["id"] for item in answer["items"]] == ["c-1"]


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ("limit=0", "invalid_parameter", "limit"),
        ("limit=501", "invalid_parameter", "limit"),
        ("limit=1000000000", "invalid_parameter", "limit"),
        ("limit=%D9%A3", "invalid_parameter", "limit"),
        ("limit=", "invalid_parameter", "limit"),
        ("cursor=nonsense", "invalid_cursor", "cursor"),
        ("sentiment=angry", "invalid_parameter", "sentiment"),
        ("since=now", "invalid_parameter", "since"),
        ("since=999999w", "invalid_parameter", "since"),
        ("since=2h&until=3h", "invalid_parameter", "since"),
        ("source=a%00b", "invalid_parameter", "source"),
        ("topic=a&topic=b", "invalid_parameter", "topic"),
        ("q=refund", "unknown_parameter", "q"),
        ("colour=red", "unknown_parameter", "colour"),
        ("%3Cscript%3E=1", "unknown_parameter", "?"),
    ],
)
async def test_a_bad_parameter_is_named(client: TestClient, query: str, code: str, field: str) -> None:
    """400 with code and field; nothing is guessed or ignored."""
    status, answer = await _get(client, f"/api/v1/insights?{query}")
    assert (status, answer["code"], answer["field"]) == (400, code, field)


async def test_a_time_span_that_ends_before_it_begins_names_both_ends(client: TestClient) -> None:
    """An empty page would look as if nothing had happened; a span of no length is one."""
    span = "since=2026-01-31T12:00:00Z&until=2026-01-31T{}Z"
    status, answer = await _get(client, f"/api/v1/insights?{span.format('11:59:59')}")
    assert (status, answer["detail"]) == (400, "since must not be later than until")
    assert (await _get(client, f"/api/v1/insights?{span.format('12:00:00')}"))[0] == 200


@pytest.mark.parametrize("path", ["/api/v1/conversations/c-1", "/api/v1/insights"])
async def test_a_database_that_is_down_is_503(client: TestClient, fakes: FakeDependencies, path: str) -> None:
    """Reads say so and when to come back."""
    fakes.reader.failure = DatabaseUnavailable("the database cannot answer", retry_after_s=5)
    async with client.get(path) as response:
        answer = await response.json(content_type="application/problem+json")
        assert (response.status, answer["code"], response.headers["Retry-After"]) == (503, "database_unavailable", "5")
