"""What is generated is current, and says what the code says."""

import json
from pathlib import Path

import jsonschema
import pytest

from schemas.conversation import Conversation, Message
from schemas.generated import MESSAGES, env_example, generated_files
from schemas.settings import Settings

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("path", generated_files())
def test_generated_files_are_current(path: str) -> None:
    """Whoever changes a message or a setting runs `grok-insights schemas`."""
    assert (ROOT / path).read_text() == generated_files()[path]


@pytest.mark.parametrize("name", MESSAGES)
def test_schemas_are_valid_json_schema(name: str) -> None:
    """Each is a schema by its own dialect."""
    schema = json.loads((ROOT / f"schemas/json/{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)


def test_a_conversation_that_we_take_passes_its_schema() -> None:
    """Code and schema agree on good and on bad messages."""
    validator = jsonschema.Draft202012Validator(json.loads((ROOT / "schemas/json/conversation.json").read_text()))
    good = Conversation(id="c", messages=(Message("user", "hello"),), metadata={"a": 1})
    assert validator.is_valid(json.loads(good.encode()))
    assert not validator.is_valid({"id": "c", "text": "x", "colour": "red"})


def test_env_example_names_every_setting() -> None:
    """None is missing, and none has a value that takes effect by copying the file."""
    text = env_example()
    for name in Settings.model_fields:
        assert f"\n# {name.upper()}=" in text
