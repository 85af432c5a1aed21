"""Settings come from three sources; one message reports all problems, without secrets."""

from pathlib import Path

import pytest

from schemas.errors import Fatal
from schemas.kafka import Topics
from schemas.settings import KNOWN_NAMES, load_settings


def problems(*required: str) -> str:
    with pytest.raises(Fatal) as caught:
        load_settings(*required)
    assert caught.value.exit_code == 2
    return caught.value.why


def problems_if_any() -> str:
    try:
        load_settings()
    except Fatal as error:
        return error.why
    return ""


def test_the_first_problem_is_on_the_first_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line prints it after `why:`, and the others below it."""
    monkeypatch.setenv("GROK_MODLE", "x")
    monkeypatch.setenv("GATEWAY_PORT", "eighty")
    first, second = problems().splitlines()
    assert first.startswith("GROK_MODLE")
    assert second.startswith("       GATEWAY_PORT")


def test_every_problem_is_listed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown names and invalid values are in one message, unknown names with a suggestion."""
    monkeypatch.setenv("GROK_MODLE", "x")
    monkeypatch.setenv("GATEWAY_PORT", "eighty")
    Path(".env").write_text("COLOUR=red\nMAX_IN_FLIGHT=0\n")
    text = problems()
    for part in ("GROK_MODLE", "did you mean GROK_MODEL?", "GATEWAY_PORT", "COLOUR in .env", "MAX_IN_FLIGHT"):
        assert part in text


def test_a_setting_that_is_not_supported_yet_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who sets a budget relies on it."""
    monkeypatch.setenv("BUDGET_USD_PER_DAY", "20")
    assert "BUDGET_USD_PER_DAY in the environment: is not available" in problems()


def test_variables_of_other_programs_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a name similar to one of ours counts as a typing error."""
    for name in ("CACHE_URL", "WORKER_CLASS", "GATEWAY_INTERFACE", "KAFKA_HOME", "DATA", "TOPIC"):
        monkeypatch.setenv(name, "x")
    assert load_settings().gateway_port == 8080
    monkeypatch.setenv("WORKER_METRICS_PROT", "1")
    assert "did you mean WORKER_METRICS_PORT?" in problems()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("RATE_LIMIT", "did you mean RATE_LIMIT_PER_MINUTE?"),
        ("CACHE_TTL", "did you mean CACHE_TTL_DAYS?"),
        ("WORKERS", "start one process for each worker"),
        ("XAI_KEY", "did you mean XAI_API_KEY?"),
    ],
)
@pytest.mark.parametrize("source", [".env", "the environment"])
def test_a_guessed_name_is_refused_with_the_right_one(
    monkeypatch: pytest.MonkeyPatch, name: str, hint: str, source: str
) -> None:
    """Ignored, it would leave the user with a limit that does not exist."""
    if source == ".env":
        Path(".env").write_text(f"{name}=5\n")
    else:
        monkeypatch.setenv(name, "5")
    text = problems()
    assert f"{name} in {source}: " in text
    assert hint in text


def test_no_setting_is_suggested_that_has_only_an_end_in_common() -> None:
    """POSTGRES_PASSWORD, of the compose file, is not KAFKA_SASL_PASSWORD."""
    Path(".env").write_text("POSTGRES_PASSWORD=x\n")
    assert problems().strip() == "POSTGRES_PASSWORD in .env: unknown setting"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("MAX_IN_FLIGHT", "many", "must be a whole number"),
        ("MAX_IN_FLIGHT", "1.5", "must be a whole number"),
        ("MAX_IN_FLIGHT", "0", "must be at least 1"),
        ("GATEWAY_PORT", "65536", "must be at most 65535"),
        ("LINGER_MS", "soon", "must be a number"),
        ("COOLDOWN_SECONDS", "0", "must be greater than 0"),
        ("ALLOW_ANONYMOUS", "perhaps", "must be true or false"),
        ("ANALYSER", "gork", "must be one of auto, grok or local"),
        ("GROK_BASE_URL", "api.x.ai", "must start with http:// or https://"),
        ("TOPIC_PREFIX", "a/b", "must consist of letters, digits, dots, underscores and dashes"),
        ("CONSUMER_GROUP", "x" * 101, "must have at most 100 characters"),
    ],
)
def test_what_is_wrong_is_said_in_words(monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str) -> None:
    """The message is ours, not pydantic's, which is about Python's types."""
    monkeypatch.setenv(name, value)
    assert problems().strip() == f"{name}: {sentence}"


def test_no_setting_answers_a_wrong_value_in_words_of_pydantic(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new setting may have a kind of check that has no sentence yet."""
    for name in KNOWN_NAMES - {"SECRETS_DIR"}:
        for value in ("?/ ", "-1", "nan", "1e99", "x" * 200):
            monkeypatch.setenv(name, value)
            assert " should " not in problems_if_any()
            monkeypatch.delenv(name)


def test_broker_addresses_may_have_spaces_around_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a host name or an address, IPv6 in brackets, and a port."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", " b-1.example.com:9092 , 10.0.0.1:9092,[::1]:9094 ")
    assert load_settings().kafka_bootstrap_servers == "b-1.example.com:9092,10.0.0.1:9092,[::1]:9094"


@pytest.mark.parametrize(
    "url",
    [
        "https://",
        "https://host:port/v1",
        "https://[::1/v1",
        "https://user:secret@host/v1",
        "https://host/v1?key=secret",
    ],
)
def test_a_base_url_that_no_call_could_use_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """It is not quoted: it may hold a password."""
    monkeypatch.setenv("GROK_BASE_URL", url)
    with pytest.raises(Fatal) as caught:
        load_settings()
    assert "GROK_BASE_URL: must " in caught.value.why
    assert "secret" not in str(caught.value) + caught.value.why


@pytest.mark.parametrize(
    ("servers", "part"),
    [
        ("SASL_SSL://b-1.example.com:9092", "set KAFKA_SECURITY_PROTOCOL"),
        ("kafka://b-1.example.com", "set KAFKA_SECURITY_PROTOCOL"),
        ("b-1:9092;b-2:9092", "separated by commas"),
        ("b-1:9092 b-2:9092", "separated by commas"),
        ("b-1:9092,,b-2:9092", "separated by commas"),
        ("b-1", "must be host:port"),
        ("b-1:kafka", "must be host:port"),
        ("b-1:99999", "must be host:port"),
        ("::1:9092", "must be host:port"),
    ],
)
def test_broker_addresses_that_no_client_can_use_are_refused(
    monkeypatch: pytest.MonkeyPatch, servers: str, part: str
) -> None:
    """A client would look for a host of that name, without end."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", servers)
    text = problems()
    assert "KAFKA_BOOTSTRAP_SERVERS: " in text
    assert part in text


@pytest.mark.parametrize("end", ["\n", "\r\n", " "])
def test_a_key_loses_the_line_break_that_was_copied_with_it(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """No HTTP header may hold one: each call would fail."""
    monkeypatch.setenv("XAI_API_KEY", f"xai-key{end}")
    monkeypatch.setenv("GROK_MODEL", "grok")
    key = load_settings().xai_api_key
    assert key is not None
    assert key.get_secret_value() == "xai-key"


@pytest.mark.parametrize("key", ["xai-key\nxai-key", "xai key", "xai-k\u00e9y", "\u201cxai-key\u201d"])
def test_a_key_that_no_header_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """At the start, not at the first call; and without showing it."""
    monkeypatch.setenv("XAI_API_KEY", key)
    text = problems()
    assert "XAI_API_KEY: must be printable ASCII" in text
    assert "xai-k" not in text


def test_a_missing_required_setting_is_named() -> None:
    """Each command names the settings that it requires."""
    assert "DATABASE_URL" in problems("database_url")


def test_invalid_combinations_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grok without a model, and listening beyond loopback without ALLOW_ANONYMOUS, are refused."""
    monkeypatch.setenv("ANALYSER", "grok")
    monkeypatch.setenv("XAI_API_KEY", "xai-secret-key")
    monkeypatch.setenv("GATEWAY_HOST", "0.0.0.0")
    text = problems()
    assert "GROK_MODEL" in text
    assert "ALLOW_ANONYMOUS" in text


def test_only_who_asks_grok_needs_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in the environment keeps no other command from running."""
    monkeypatch.setenv("XAI_API_KEY", "xai-secret-key")
    assert load_settings().asks_grok
    with pytest.raises(Fatal) as caught:
        load_settings(needs_model=True)
    assert "GROK_MODEL: is required" in caught.value.why
    monkeypatch.setenv("ANALYSER", "local")
    assert not load_settings(needs_model=True).asks_grok


def test_no_value_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value may be a secret under the wrong name."""
    monkeypatch.setenv("GATEWAY_PORT", "xai-secret-key")
    monkeypatch.setenv("GROK_KEY", "xai-secret-key")
    assert "xai-secret-key" not in problems()


def test_the_environment_wins_over_env_file_and_that_over_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in SECRETS_DIR is named like its setting."""
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
    """Settings may be logged by accident."""
    monkeypatch.setenv("XAI_API_KEY", "xai-secret-key")
    monkeypatch.setenv("GROK_MODEL", "some-model")
    assert "xai-secret-key" not in repr(load_settings())


def test_auto_asks_grok_only_with_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key no conversation is sent anywhere."""
    assert not load_settings().asks_grok
    monkeypatch.setenv("XAI_API_KEY", "k")
    monkeypatch.setenv("GROK_MODEL", "m")
    assert load_settings().asks_grok


def test_the_group_follows_the_prefix_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """One setting separates two environments; CONSUMER_GROUP overrides the group alone."""
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
