"""Generated files are up to date and agree with the code."""

import json
from pathlib import Path

import jsonschema
import pytest

from schemas.conversation import Conversation, Message
from schemas.export import MESSAGES, env_example, generated_files
from schemas.settings import Settings

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("path", generated_files())
def test_generated_files_are_current(path: str) -> None:
    """Run `grok-insights schemas` after changing a message or a setting."""
    assert (ROOT / path).read_text() == generated_files()[path]


@pytest.mark.parametrize("name", MESSAGES)
def test_schemas_are_valid_json_schema(name: str) -> None:
    """Each schema is valid in its own dialect."""
    schema = json.loads((ROOT / f"schemas/json/{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)


def test_the_schema_accepts_what_the_code_accepts() -> None:
    """And rejects what the code rejects."""
    validator = jsonschema.Draft202012Validator(json.loads((ROOT / "schemas/json/conversation.json").read_text()))
    good = Conversation(id="c", messages=(Message("user", "hello"),), metadata={"a": 1})
    assert validator.is_valid(json.loads(good.encode()))
    assert validator.is_valid({"id": 7, "text": "x"})
    assert not validator.is_valid({"id": 7.5, "text": "x"})
    assert not validator.is_valid({"id": "c", "text": "x", "colour": "red"})


def test_env_example_names_every_setting() -> None:
    """All are commented out, so that copying the file changes nothing."""
    text = env_example()
    for name in Settings.model_fields:
        assert f"\n# {name.upper()}=" in text
