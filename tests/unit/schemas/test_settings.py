"""Settings: three sources, one message for all problems, and no secret in any of them."""

from pathlib import Path

import pytest

from schemas.errors import Fatal
from schemas.kafka import Topics
from schemas.settings_file import load_settings


def problems(*required: str) -> str:
    with pytest.raises(Fatal) as caught:
        load_settings(*required)
    assert caught.value.exit_code == 2
    return caught.value.why


def test_every_problem_is_listed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown names, wrong values and missing ones are told in one message, unknown ones with what may be meant."""
    monkeypatch.setenv("GROK_MODLE", "x")
    monkeypatch.setenv("GATEWAY_PORT", "eighty")
    Path(".env").write_text("COLOUR=red\nMAX_IN_FLIGHT=0\n")
    text = problems()
    for part in ("GROK_MODLE", "GROK_MODEL meant", "GATEWAY_PORT", "COLOUR in .env", "MAX_IN_FLIGHT"):
        assert part in text


def test_a_limit_that_is_not_built_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sets a budget relies on it."""
    monkeypatch.setenv("BUDGET_USD_PER_DAY", "20")
    assert "BUDGET_USD_PER_DAY in the environment: is not available" in problems()


def test_other_programs_variables_are_none_of_our_business(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is like one of our names is taken for a typing error."""
    for name in ("CACHE_URL", "WORKER_CLASS", "GATEWAY_INTERFACE", "KAFKA_HOME", "DATA", "TOPIC"):
        monkeypatch.setenv(name, "x")
    assert load_settings().gateway_port == 8080
    monkeypatch.setenv("WORKER_METRICS_PROT", "1")
    assert "WORKER_METRICS_PORT meant" in problems()


def test_what_a_command_needs_is_named() -> None:
    """A setting without a default is asked for by those who need it."""
    assert "DATABASE_URL" in problems("database_url")


def test_settings_that_are_wrong_together_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key without a model, and listening to everyone without saying so, stop the start."""
    monkeypatch.setenv("XAI_API_KEY", "xai-secret-key")
    monkeypatch.setenv("GATEWAY_HOST", "0.0.0.0")
    text = problems()
    assert "GROK_MODEL" in text
    assert "ALLOW_ANONYMOUS" in text


def test_no_value_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value may be a secret that stands under the wrong name."""
    monkeypatch.setenv("GATEWAY_PORT", "xai-secret-key")
    monkeypatch.setenv("GROK_KEY", "xai-secret-key")
    assert "xai-secret-key" not in problems()


def test_the_environment_wins_over_env_file_and_that_over_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest source counts; a secret's file is named like its setting."""
    Path("secrets").mkdir()
    Path("secrets/database_url").write_text("postgresql://secret")
    Path("secrets/grok_timeout_s").write_text("1")
    Path(".env").write_text("GROK_TIMEOUT_S=2\nMAX_IN_FLIGHT=7\n")
    monkeypatch.setenv("SECRETS_DIR", "secrets")
    monkeypatch.setenv("MAX_IN_FLIGHT", "9")
    settings = load_settings("database_url")
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql://secret"
    assert (settings.grok_timeout_s, settings.max_in_flight) == (2, 9)


def test_secrets_are_not_in_the_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings may be logged by accident; secrets are not shown then."""
    monkeypatch.setenv("XAI_API_KEY", "xai-secret-key")
    monkeypatch.setenv("GROK_MODEL", "some-model")
    assert "xai-secret-key" not in repr(load_settings())


def test_auto_asks_grok_only_with_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key nothing leaves; with one, Grok is asked."""
    assert not load_settings().asks_grok
    monkeypatch.setenv("XAI_API_KEY", "k")
    monkeypatch.setenv("GROK_MODEL", "m")
    assert load_settings().asks_grok


def test_the_group_follows_the_prefix_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """One setting is enough to keep two environments apart; the group alone can be named, too."""
    assert load_settings().topics == Topics()
    monkeypatch.setenv("TOPIC_PREFIX", "staging.")
    assert load_settings().topics == Topics("staging.", "staging.grok-insights")
    monkeypatch.setenv("CONSUMER_GROUP", "team-a")
    assert load_settings().topics == Topics("staging.", "team-a")


@pytest.mark.parametrize("name", ["TOPIC_PREFIX", "CONSUMER_GROUP"])
@pytest.mark.parametrize("value", ["a/b", "staging ", "staging.\n", "grün", "x" * 101])
def test_a_name_that_kafka_refuses_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Both become parts of topic names."""
    monkeypatch.setenv(name, value)
    assert name in problems()
