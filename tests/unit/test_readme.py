"""The README's examples of an insight are what the service makes; what else it names is checked in test_docs.py."""

import json
import re
from pathlib import Path

import jsonschema
import msgspec

from agents.text_key import canonical_text, text_key
from schemas.conversation import Conversation
from schemas.result import ConversationResult

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_examples_of_an_insight_are_full_ones() -> None:
    """The second is what the topic carries of an analysed conversation without source and metadata."""
    insight, example = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    result = msgspec.json.decode(example, type=ConversationResult, strict=True)
    validator = jsonschema.Draft202012Validator(json.loads((ROOT / "schemas/json/result.json").read_text()))
    assert validator.is_valid(json.loads(example))
    absent = {"reason", "source", "metadata", "repairs"}
    assert json.loads(example).keys() == set(ConversationResult.__struct_fields__) - absent
    assert json.loads(example)["insight"] == json.loads(insight)
    text = canonical_text(Conversation(id=result.id, text="I was charged twice and want my money back"))
    assert result.text_key == text_key(result.tenant, text)
