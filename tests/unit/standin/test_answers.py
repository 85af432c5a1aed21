"""The stand-in's replies: in the documented form, by the schema, the same for the same text."""

import jsonschema
import orjson
import pytest

from agents.grok.prompt import ANSWER_SCHEMA, SYSTEM_PROMPT
from streams.standin.answers import Answerer
from streams.standin.faults import FaultKind

TEXTS = ["My parcel is late and I want a refund!", "user: hi\nagent: hello", "退款", "x" * 50_000, " "]


@pytest.mark.parametrize("text", TEXTS)
def test_answers_follow_the_schema_that_was_asked_for(text: str) -> None:
    """A stand-in that breaks the schema by itself would test nothing."""
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


def test_the_same_text_gets_the_same_reply() -> None:
    """Also from another process: nothing depends on the hash seed."""
    one, other = (Answerer().completion("system", "text", "grok-x", None) for _ in range(2))
    assert one == other


def test_faults_of_content_spoil_what_they_name() -> None:
    """Each is what its kind says, and the rest of the reply stays as documented."""
    replies = {kind: orjson.loads(Answerer().completion("s", "text", "grok-x", kind).body) for kind in FaultKind}
    messages = {kind: reply["choices"][0]["message"] for kind, reply in replies.items()}
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(messages[FaultKind.BAD_JSON]["content"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(orjson.loads(messages[FaultKind.BAD_SCHEMA]["content"]), ANSWER_SCHEMA)
    assert messages[FaultKind.REFUSAL]["refusal"]
    assert "usage" not in replies[FaultKind.NO_USAGE]
