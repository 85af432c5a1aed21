"""What the stand-in refuses, as the provider documents it."""

import orjson
import pytest

from agents.grok.prompt import RequestTemplate
from schemas.errors import Rejected
from streams.standin.requests import check_key, read_question


@pytest.mark.parametrize(
    ("authorization", "status"), [(None, 401), ("", 401), ("Basic abc", 401), ("Bearer ", 401), ("Bearer wrong", 400)]
)
def test_a_missing_key_is_401_and_a_wrong_one_400(authorization: str | None, status: int) -> None:
    """The provider answers a wrong key with 400."""
    with pytest.raises(Rejected) as raised:
        check_key(authorization, "right")
    assert raised.value.status == status


def test_any_key_will_do_where_none_is_configured() -> None:
    """But there must be one."""
    check_key("Bearer anything", None)
    check_key("bearer right", "right")


def test_a_caller_is_known_by_its_key_without_the_key() -> None:
    """The same one for the same key, however it is written."""
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
    """A client that leaves out the schema or the system prompt is found out by its tests."""
    body = orjson.dumps(orjson.loads(RequestTemplate("grok-x").body("a text")) | change)
    with pytest.raises(Rejected) as raised:
        read_question(body, ())
    assert raised.value.status == status


@pytest.mark.parametrize("body", [b"", b"{", b"\xff"])
def test_what_is_no_json_is_400(body: bytes) -> None:
    """Never a 500."""
    with pytest.raises(Rejected) as raised:
        read_question(body, ())
    assert raised.value.status == 400
