"""What the README names is there: commands, targets, files, metrics, settings."""

import json
import re
from pathlib import Path

import jsonschema
import msgspec
import pytest

from agents.text_key import canonical_text, text_key
from schemas.conversation import Conversation
from schemas.result import ConversationResult
from schemas.settings import Settings
from streams.cli import COMMANDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)\b", README))))
def test_make_targets_exist(target: str) -> None:
    """Every `make x` in the README is a target."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`grok-insights ([a-z]+)", README))))
def test_commands_exist(command: str) -> None:
    """Every `grok-insights x` in the README is a command."""
    assert command in COMMANDS


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_lead_somewhere(path: str) -> None:
    """Every relative link is a file or folder of the repository."""
    assert (ROOT / path).exists()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", README))))
def test_settings_exist(name: str) -> None:
    """Every name in capitals is a setting, a variable that every program knows, or the one that steers the tests."""
    assert name.lower() in Settings.model_fields or name in {"HTTPS_PROXY", "NO_PROXY", "GROK_INSIGHTS_TEST_REQUIRE"}


def test_the_example_of_an_insight_is_a_full_one() -> None:
    """It is what the topic carries, with each field of an analysed conversation that has no source."""
    [example] = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    result = msgspec.json.decode(example, type=ConversationResult, strict=True)
    validator = jsonschema.Draft202012Validator(json.loads((ROOT / "schemas/json/result.json").read_text()))
    assert validator.is_valid(json.loads(example))
    assert json.loads(example).keys() == set(ConversationResult.__struct_fields__) - {"reason", "source"}
    assert result.insight is not None
    text = canonical_text(Conversation(id=result.id, text="I was charged twice and want my money back"))
    assert result.text_key == text_key(result.tenant, text)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([a-z_]+_total)`", README))))
def test_metrics_exist(name: str) -> None:
    """Every metric is one of ours."""
    assert f'"{name}"' in (ROOT / "streams/telemetry/metrics.py").read_text()
