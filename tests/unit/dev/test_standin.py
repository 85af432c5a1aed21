"""The stand-in: requests, replies, faults, statistics, journal and the options of its command."""

import asyncio
import hashlib
import random
import select
import socket
from pathlib import Path

import jsonschema
import msgspec
import orjson
import pytest
import typer
import uvloop
from typer.testing import CliRunner

from agents.grok.prompt import ANSWER_SCHEMA, SYSTEM_PROMPT, RequestTemplate
from schemas.errors import Fatal, Rejected
from streams.commands.standin import standin
from streams.dev.standin.completions import Answerer, check_key, read_question
from streams.dev.standin.faults import FaultChooser, FaultKind, FaultPlan, Marker
from streams.dev.standin.server import Call, End, Journal, StandinConfig, Stats, serving


@pytest.mark.parametrize(
    ("authorization", "status"), [(None, 401), ("", 401), ("Basic abc", 401), ("Bearer ", 401), ("Bearer wrong", 400)]
)
def test_a_missing_key_is_401_and_a_wrong_one_400(authorization: str | None, status: int) -> None:
    """The provider answers a wrong key with 400."""
    with pytest.raises(Rejected) as raised:
        check_key(authorization, "right")
    assert raised.value.status == status


def test_any_key_will_do_where_none_is_configured() -> None:
    """A key is required all the same."""
    check_key("Bearer anything", None)
    check_key("bearer right", "right")


def test_a_caller_is_known_by_its_key_without_the_key() -> None:
    """The same key is the same caller, however it is spaced."""
    caller = check_key("Bearer a-key", None)
    assert caller == check_key("bearer  a-key ", "a-key") != check_key("Bearer another", None)
    assert (len(caller), caller in "a-key") == (8, False)


def test_the_clients_own_request_is_understood() -> None:
    """The user message is the text."""
    question = read_question(RequestTemplate("grok-x").body("a text"), ("grok-x",))
    assert (question.model, question.text) == ("grok-x", "a text")


def test_a_model_that_does_not_exist_is_404_only_where_models_are_configured() -> None:
    """Without a list every model exists."""
    assert read_question(RequestTemplate("grok-y").body("a text"), ()).model == "grok-y"
    with pytest.raises(Rejected) as raised:
        read_question(RequestTemplate("grok-y").body("a text"), ("grok-x",))
    assert raised.value.status == 404


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"messages": []}, 422),
        ({"messages": [{"role": "user", "content": "x"}]}, 422),
        ({"response_format": {"type": "text", "json_schema": {}}}, 422),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, 422),
        ({"model": 7}, 422),
    ],
)
def test_a_request_of_another_form_is_refused(change: dict[str, object], status: int) -> None:
    """A client that omits the schema or the system prompt fails in its tests."""
    body = orjson.dumps(orjson.loads(RequestTemplate("grok-x").body("a text")) | change)
    with pytest.raises(Rejected) as raised:
        read_question(body, ())
    assert raised.value.status == status


@pytest.mark.parametrize("body", [b"", b"{", b"\xff"])
def test_invalid_json_is_400(body: bytes) -> None:
    """Never a 500."""
    with pytest.raises(Rejected) as raised:
        read_question(body, ())
    assert raised.value.status == 400


TEXTS = ["My parcel is late and I want a refund!", "user: hi\nagent: hello", "退款", "x" * 50_000, " "]


@pytest.mark.parametrize("text", TEXTS)
def test_answers_follow_the_schema_that_was_asked_for(text: str) -> None:
    """Without faults the schema is never violated."""
    body = orjson.loads(Answerer().completion(SYSTEM_PROMPT, text, "grok-x", None).body)
    answer = orjson.loads(body["choices"][0]["message"]["content"])
    jsonschema.validate(answer, ANSWER_SCHEMA)
    assert (body["object"], body["model"], body["choices"][0]["finish_reason"]) == ("chat.completion", "grok-x", "stop")


@pytest.mark.parametrize("text", TEXTS)
def test_usage_has_the_documented_traps(text: str) -> None:
    """Cached tokens are within the prompt's, reasoning ones in the total only, and the cost is the reply's own."""
    completion = Answerer().completion(SYSTEM_PROMPT, text, "grok-x", None)
    usage = orjson.loads(completion.body)["usage"]
    reasoning = usage["completion_tokens_details"]["reasoning_tokens"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] + reasoning
    assert 0 <= usage["prompt_tokens_details"]["cached_tokens"] <= usage["prompt_tokens"]
    assert usage["cost_in_usd_ticks"] == completion.cost_usd_ticks > 0


def test_answers_are_plausible() -> None:
    """A demo shows them to people."""
    texts = {
        "user: Hi, my card was stolen!\nagent: I am sorry": ("negative", "report_fraud", "critical", ["security"]),
        "I love this product, it is great": ("positive", "inform", "low", []),
        "Where is my parcel?": ("neutral", "ask_status", "low", ["delivery"]),
        "Good app, but the terrible update crashed": ("mixed", "report_problem", "medium", ["technical problem"]),
    }
    for text, expected in texts.items():
        body = orjson.loads(Answerer().completion("", text, "grok-x", None).body)
        answer = orjson.loads(body["choices"][0]["message"]["content"])
        assert (answer["sentiment"], answer["intent"], answer["urgency"], answer["topics"]) == expected
        assert answer["summary"] in text


def test_the_same_text_gets_the_same_reply() -> None:
    """Also in another process: the hash seed does not matter."""
    one, other = (Answerer().completion("system", "text", "grok-x", None) for _ in range(2))
    assert one == other


def test_faults_of_content_spoil_what_they_name() -> None:
    """The rest of the reply stays as documented."""
    replies = {kind: orjson.loads(Answerer().completion("s", "text", "grok-x", kind).body) for kind in FaultKind}
    messages = {kind: reply["choices"][0]["message"] for kind, reply in replies.items()}
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(messages[FaultKind.BAD_JSON]["content"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(orjson.loads(messages[FaultKind.BAD_SCHEMA]["content"]), ANSWER_SCHEMA)
    assert messages[FaultKind.REFUSAL]["refusal"]
    assert "usage" not in replies[FaultKind.NO_USAGE]


def test_rates_are_shares_of_all_calls() -> None:
    """The same calls fail with the same seed."""
    plan = FaultPlan(rates={FaultKind.HTTP_429: 0.2, FaultKind.RESET: 0.1})
    chosen = [[FaultChooser(plan, random.Random(7).random).choose("text")] for _ in range(3)]
    assert chosen[0] == chosen[1] == chosen[2]
    chooser = FaultChooser(plan, random.Random(7).random)
    kinds = [chooser.choose("text") for _ in range(10_000)]
    assert abs(kinds.count(FaultKind.HTTP_429) - 2_000) < 200
    assert abs(kinds.count(FaultKind.RESET) - 1_000) < 200
    assert kinds.count(None) + kinds.count(FaultKind.HTTP_429) + kinds.count(FaultKind.RESET) == 10_000


def test_a_marked_text_fails_as_often_as_its_marker_says() -> None:
    """Twice, then never again; other texts are not touched."""
    chooser = FaultChooser(FaultPlan(markers=(Marker("#bad", FaultKind.BAD_JSON, times=2),)), lambda: 0.99)
    assert [chooser.choose("a #bad text") for _ in range(4)] == [FaultKind.BAD_JSON, FaultKind.BAD_JSON, None, None]
    assert chooser.choose("a good text") is None


@pytest.mark.parametrize(
    "plan",
    [
        b'{"rates": {"http_429": 0.7, "reset": 0.7}}',
        b'{"rates": {"http_429": 2}}',
        b'{"rates": {"earthquake": 0.1}}',
        b'{"hangs": 3}',
        b'{"markers": [{"text": "", "kind": "hang"}]}',
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(plan: bytes) -> None:
    """A typing error must not result in a test without faults."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(plan, type=FaultPlan)


def test_texts_are_distinguished_and_repetitions_counted() -> None:
    """Three calls, two texts, one asked for twice but billed once."""
    stats = Stats()
    for text, billed in (("a", False), ("a", True), ("b", True)):
        digest = stats.began(text, "me")
        if billed:
            stats.billed(digest, 10)
        stats.ended("me", cut_off=False)
    figures = stats.snapshot()
    assert (figures["calls"], figures["distinct_texts"], figures["repeated_texts"]) == (3, 2, 1)
    assert (figures["billed"], figures["billed_again_texts"], figures["billed_usd_ticks"]) == (2, 0, 20)


def test_calls_in_flight_survive_a_reset() -> None:
    """in_flight is a state, not a count: it never becomes negative."""
    stats = Stats()
    stats.began("a", "me")
    stats.began("b", "you")
    stats.reset()
    assert (stats.snapshot()["calls"], stats.snapshot()["in_flight"], stats.snapshot()["max_in_flight"]) == (0, 2, 2)
    stats.ended("me", cut_off=True)
    stats.ended("you", cut_off=False)
    assert (stats.snapshot()["in_flight"], stats.snapshot()["cut_off"]) == (0, 1)


def test_replies_are_counted_by_status_and_faults_by_kind() -> None:
    """Only a 200 is an answer."""
    stats = Stats()
    stats.by_status.update((200, 429))
    stats.by_fault[FaultKind.HTTP_429] += 1
    figures = stats.snapshot()
    assert (figures["answered"], figures["by_status"], figures["faults"]) == (1, {"200": 1, "429": 1}, {"http_429": 1})


def test_calls_in_flight_are_counted_by_caller() -> None:
    """A caller without any is left out."""
    stats = Stats()
    for caller in ("me", "you", "me"):
        stats.began("a", caller)
    stats.ended("you", cut_off=False)
    assert stats.snapshot()["in_flight_by_caller"] == {"me": 2}


CALL = Call(hashlib.sha256(b"text").digest(), "0a1b2c3d", 100.5, FaultKind.HANG)


def test_a_line_is_written_as_soon_as_the_call_ends(tmp_path: Path) -> None:
    """Lines of an earlier run are kept."""
    for ended_s in (101.0, 102.0):
        Journal(tmp_path / "journal").append(CALL, End.ANSWERED, ended_s)
    first, second = (orjson.loads(line) for line in (tmp_path / "journal").read_text().splitlines())
    assert first == second | {"ended_s": 101.0}
    assert second == {
        "text": hashlib.sha256(b"text").hexdigest(),
        "caller": "0a1b2c3d",
        "began_s": 100.5,
        "ended_s": 102.0,
        "end": "answered",
        "fault": "hang",
    }


def test_a_journal_that_cannot_be_written_fails_at_the_start(tmp_path: Path) -> None:
    """Otherwise a whole run could be useless."""
    with pytest.raises(Fatal, match="journal"):
        Journal(tmp_path / "missing" / "journal")


@pytest.mark.parametrize(
    ("fault", "status", "end"),
    [
        (None, 200, End.ANSWERED),
        (FaultKind.HANG, 200, End.ANSWERED),
        (FaultKind.SLOW_BODY, 200, End.ANSWERED),
        (FaultKind.BAD_JSON, 200, End.ANSWERED),
        (FaultKind.HTTP_429, 429, End.FAILED),
        (FaultKind.RESET, 200, End.FAILED),
        (FaultKind.RESET_MID_BODY, 200, End.FAILED),
    ],
)
def test_only_a_whole_200_is_an_answer(fault: FaultKind | None, status: int, end: End) -> None:
    """Whatever its content is."""
    assert Call(b"", "", 0, fault).end_by(status) is end


@pytest.mark.parametrize(
    "arguments",
    [
        ["--fault", "earthquake=0.1"],
        ["--fault", "http_429=often"],
        ["--fault", "http_429=2"],
        ["--fault", "http_429=0.7", "--fault", "reset=0.7"],
        ["--latency-min-s", "2", "--latency-max-s", "1"],
    ],
)
def test_options_that_make_no_sense_are_misuse(arguments: list[str]) -> None:
    """The message names the option's problem."""
    application = typer.Typer()
    application.command()(standin)
    result = CliRunner().invoke(application, arguments)
    assert result.exit_code == 2
    assert "Invalid value" in result.output


async def turns_until_answered(connections: int) -> int:
    """Turns of the loop until each of `count` connections, which all wait before the first of them, has its answer."""
    async with serving(StandinConfig()) as address:
        host, port = address.removeprefix("http://").split(":")
        waiting = [socket.create_connection((host, int(port))) for _ in range(connections)]
        for connection in waiting:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: standin\r\n\r\n")
        turns = 0
        while len(select.select(waiting, [], [], 0)[0]) < connections:
            turns += 1
            await asyncio.sleep(0)
        for connection in waiting:
            connection.close()
        return turns


def test_callers_that_come_at_once_are_noticed_at_once() -> None:
    """On the loop of its command: one new caller per turn would let hundreds wait for as long as others keep the stand-
    in busy, and a rebalance cuts off a call that it has not noticed too."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(turns_until_answered(200)) < 50
