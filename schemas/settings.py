"""All settings, and `load_settings`, which reports every problem in one message."""

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.errors import Fatal
from schemas.kafka import Topics

#: The characters that Kafka allows in topic names.
_TOPIC_CHARACTERS = r"^[a-zA-Z0-9._-]*$"
_URL_START = "^https?://"
_ADDRESS = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([1-9]\d{0,4})")
_MAX_PORT = 65_535


class Settings(BaseSettings):
    """All settings, read once at start.

    The environment wins over .env, and .env over files named like the settings in SECRETS_DIR.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_file=".env", env_ignore_empty=True, hide_input_in_errors=True
    )

    # --- Kafka ---
    kafka_bootstrap_servers: str | None = Field(None, description="Kafka brokers: comma-separated host:port")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Kafka security protocol: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="SASL mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
    )
    kafka_sasl_username: str | None = Field(None, description="SASL user name")
    kafka_sasl_password: SecretStr | None = Field(None, description="SASL password")
    kafka_ssl_cafile: Path | None = Field(
        None, description="CA certificates that verify the brokers; the system's by default"
    )
    kafka_ssl_certfile: Path | None = Field(None, description="client certificate for mutual TLS")
    kafka_ssl_keyfile: Path | None = Field(None, description="private key of the client certificate")
    topic_prefix: str = Field(
        "",
        pattern=_TOPIC_CHARACTERS,
        max_length=100,
        description="prefix of every topic name, such as staging.; lets environments share a Kafka cluster",
    )
    consumer_group: str | None = Field(
        None,
        pattern=_TOPIC_CHARACTERS,
        min_length=1,
        max_length=100,
        description="consumer group of the workers; by default TOPIC_PREFIX followed by grok-insights",
    )
    kafka_session_timeout_s: float = Field(
        10,
        ge=1,
        le=300,
        description="session timeout of the consumer group in seconds; Apache Kafka's minimum is 6 by default",
    )
    kafka_rebalance_timeout_s: float = Field(
        12,
        ge=2,
        le=300,
        description="rebalance timeout of the consumer group in seconds; half of it is for draining calls in flight",
    )
    topic_partitions: int = Field(8, ge=1, le=1000, description="partitions of each topic that `topics` creates")
    topic_replication_factor: int = Field(
        1, ge=1, le=9, description="replication factor of each topic that `topics` creates"
    )

    # --- Postgres ---
    database_url: SecretStr | None = Field(
        None, description="PostgreSQL URL: postgresql://user:password@host:port/database; libpq's parameters may follow"
    )

    # --- Analysis ---
    analyser: Literal["auto", "grok", "local"] = Field(
        "auto", description="grok, local (free, English, rough), or auto: grok if XAI_API_KEY is set, else local"
    )
    xai_api_key: SecretStr | None = Field(None, description="API key for Grok")
    grok_base_url: str = Field(
        "https://api.x.ai/v1",
        pattern=_URL_START,
        description="base URL of the Grok API; HTTPS_PROXY and NO_PROXY of the environment are honoured",
    )
    grok_model: str | None = Field(
        None, description="Grok model; required with Grok, without a default because models retire"
    )
    grok_timeout_s: float = Field(60, gt=0, le=3600, description="timeout of a call in seconds")
    grok_batch_max: int = Field(1, ge=1, le=1, description="maximum conversations per call; only 1 is supported so far")
    grok_cost_per_1k: float | None = Field(
        None, ge=0, description="price per 1,000 tokens in USD, for replies that do not state their cost"
    )
    max_in_flight: int = Field(512, ge=1, le=100_000, description="maximum calls in flight per worker")
    linger_ms: float = Field(
        10, ge=0, le=1000, description="how long answers, rows and events wait for a larger batch, in milliseconds"
    )
    cooldown_seconds: float = Field(10, gt=0, description="how long the circuit breaker stays open, in seconds")
    breaker_errors: int = Field(5, ge=1, description="consecutive errors that open the circuit breaker")
    cache_ttl_days: float = Field(30, gt=0, description="how long the cache serves an answer, in days")

    # --- Gateway ---
    gateway_host: str = Field(
        "127.0.0.1", description="address the gateway listens on; any but loopback requires ALLOW_ANONYMOUS=true"
    )
    gateway_port: int = Field(8080, ge=0, le=65535, description="port the gateway listens on; 0 takes any free port")
    allow_anonymous: bool = Field(False, description="allow access to the gateway from other hosts without API keys")
    rate_limit_per_minute: int = Field(600, ge=1, description="maximum requests per minute and client IP address")

    # --- Worker ---
    worker_metrics_host: str = Field("127.0.0.1", description="address of the worker's /metrics and probes")
    worker_metrics_port: int = Field(
        8081, ge=0, le=65535, description="port of the worker's /metrics and probes; 0 takes any free port"
    )
    dead_letter_limit: int = Field(
        100,
        ge=1,
        le=10_000,
        description="dead letters in a row that halt a worker; so does one more among ten times as many outcomes",
    )
    lag_soft_seconds: float = Field(
        30, gt=0, description="age of the oldest unfinished record in seconds above which /health is degraded"
    )

    # --- Both ---
    data_dir: Path = Field(
        Path(".grok-insights"), description="directory of the RocksDB tables, and of the local stack's data and logs"
    )
    secrets_dir: Path | None = Field(
        None, description="directory of files named like settings; can only be set in the environment"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="minimum log level: debug, info, warning or error"
    )

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def _split_servers(cls, servers: str | None) -> str | None:
        """Spaces around commas go; a scheme or another separator would make clients ask for a host of that name."""
        if servers is None:
            return None
        addresses = [address.strip() for address in servers.split(",")]
        if any("://" in address for address in addresses):
            raise ValueError("takes host:port without a scheme; set KAFKA_SECURITY_PROTOCOL to the protocol")
        matches = [_ADDRESS.fullmatch(address) for address in addresses]
        if not all(match and int(match[2]) <= _MAX_PORT for match in matches):
            raise ValueError("must be host:port, several separated by commas")
        return ",".join(addresses)

    @field_validator("grok_base_url")
    @classmethod
    def _check_base_url(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            is_address = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            is_address = False
        if not is_address:
            raise ValueError("must be a URL such as https://api.x.ai/v1")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("must have no user, password, query or fragment; the key is XAI_API_KEY")
        return url

    @field_validator("xai_api_key")
    @classmethod
    def _strip_key(cls, key: SecretStr | None) -> SecretStr | None:
        """Files and copied keys end with a line break, which no HTTP header may hold."""
        if key is None:
            return None
        stripped = key.get_secret_value().strip()
        if not (stripped.isascii() and stripped.isprintable()) or " " in stripped:
            raise ValueError("must be printable ASCII characters without spaces: it is sent in an HTTP header")
        return SecretStr(stripped) if stripped else None

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        """Rejects invalid combinations; each message names the settings to change."""
        problems = [text for is_wrong, text in self._combinations() if is_wrong]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _combinations(self) -> list[tuple[bool, str]]:
        sasl = self.kafka_security_protocol.startswith("SASL")
        has_login = self.kafka_sasl_username is not None and self.kafka_sasl_password is not None
        return [
            (self.analyser == "grok" and self.grok_model is None, "GROK_MODEL: is required with ANALYSER=grok"),
            (self.analyser == "grok" and self.xai_api_key is None, "XAI_API_KEY: is required with ANALYSER=grok"),
            (
                self.kafka_rebalance_timeout_s < 2 * self.kafka_heartbeat_interval_s,
                "KAFKA_REBALANCE_TIMEOUT_S: must be at least 0.6 of KAFKA_SESSION_TIMEOUT_S, or 6",
            ),
            (sasl and not has_login, "KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD: are required with a SASL protocol"),
            (
                not self.allow_anonymous and not is_loopback(self.gateway_host),
                "GATEWAY_HOST: other hosts could connect without API keys; set ALLOW_ANONYMOUS=true to allow that",
            ),
        ]

    @property
    def topics(self) -> Topics:
        """The names of the topics and of the consumer group."""
        return Topics(self.topic_prefix, self.consumer_group or f"{self.topic_prefix}grok-insights")

    @property
    def kafka_heartbeat_interval_s(self) -> float:
        """Three heartbeats a session, so that two may be lost; 3 s at most, as is Kafka's default."""
        return min(0.3 * self.kafka_session_timeout_s, 3.0)

    @property
    def asks_grok(self) -> bool:
        """Whether conversations are sent to the Grok API."""
        return self.analyser == "grok" or (self.analyser == "auto" and self.xai_api_key is not None)


#: In the environment, names with these prefixes must be settings; other unknown names may belong to other programs.
OUR_PREFIXES = ("GROK_", "XAI_")
#: GROK_INSIGHTS_* configures tests and tools.
NOT_SETTINGS = ("GROK_INSIGHTS_",)
#: Planned settings. They are refused: a user who sets a budget relies on it (infra/adr/0004).
NOT_SUPPORTED = frozenset(
    {"BUDGET_USD_PER_DAY", "GROK_RPM", "GROK_TPM", "LAG_HARD_SECONDS", "STORE_TEXT", "TRUSTED_PROXIES"}
)
#: An unknown name this similar to a setting's (difflib's ratio) counts as a typing error.
TYPING_ERROR_RATIO = 0.85
#: Names that people try, and what to do instead.
NO_SETTINGS = {"WORKERS": "start one process for each worker; the local stack has the option --workers"}

KNOWN_NAMES = frozenset(name.upper() for name in Settings.model_fields)

#: What is wrong with a value, by pydantic's type of the error; its own sentences are about Python types.
_SENTENCES = {
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "finite_number": "must be a number",
    "bool_parsing": "must be true or false",
    "literal_error": "must be one of {expected}",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
}
#: By the pattern that a value does not match.
_PATTERN_SENTENCES = {
    _TOPIC_CHARACTERS: "must consist of letters, digits, dots, underscores and dashes",
    _URL_START: "must start with http:// or https://",
}


def load_settings(*required: str, needs_model: bool = False) -> Settings:
    """Loads the settings; the environment wins over .env, and .env over SECRETS_DIR.

    `required` are names of fields that the caller needs; `needs_model`: also the model, if Grok is asked. Raises Fatal
    with exit code 2 and a list of all problems, without any value: it may be a secret.
    """
    problems = _unknown_in_environment()
    settings = _validate(problems)
    if settings is not None:
        problems += [f"{name.upper()}: is required" for name in required if getattr(settings, name) is None]
        if needs_model and settings.asks_grok and settings.grok_model is None:
            problems.append("GROK_MODEL: is required with XAI_API_KEY; ANALYSER=local asks no model")
    if settings is None or problems:
        hint = "`grok-insights worker --help` names the settings, .env.example in the repository explains all of them"
        raise Fatal("the settings are invalid", "\n       ".join(problems), hint, exit_code=2)
    return settings


def _validate(problems: list[str]) -> Settings | None:
    """Returns None and adds to `problems` when the settings are invalid."""
    secrets_dir = os.environ.get("SECRETS_DIR")
    if secrets_dir and not os.path.isdir(secrets_dir):
        problems.append("SECRETS_DIR: is not a readable directory")
        secrets_dir = None
    try:
        return Settings(_secrets_dir=secrets_dir or None)  # type: ignore[call-arg]
    except ValidationError as error:
        for item in error.errors(include_input=False, include_url=False):
            name = ".".join(str(part) for part in item["loc"]).upper()
            if item["type"] == "extra_forbidden":
                problems.append(_unknown(name, ".env"))
            else:
                text = _sentence(item["type"], item["msg"], item.get("ctx", {}))
                problems += [f"{name}: {text}"] if name else text.splitlines()
        return None


def _sentence(kind: str, message: str, context: Mapping[str, Any]) -> str:
    if kind == "string_pattern_mismatch":
        return _PATTERN_SENTENCES[context["pattern"]]
    if kind in _SENTENCES:
        return _SENTENCES[kind].format(**context).replace("'", "")
    return message.removeprefix("Value error, ")


def _unknown_in_environment() -> list[str]:
    names = {name for name in os.environ if not name.startswith(NOT_SETTINGS)} - KNOWN_NAMES
    ours = {
        name
        for name in names
        if name.startswith(OUR_PREFIXES) or name in NOT_SUPPORTED or name in NO_SETTINGS or _intended(name)
    }
    return [_unknown(name, "the environment") for name in sorted(ours)]


def _unknown(name: str, source: str) -> str:
    if name in NOT_SUPPORTED:
        return f"{name} in {source}: is not available in this version; unset it"
    if name in NO_SETTINGS:
        return f"{name} in {source}: is not a setting; {NO_SETTINGS[name]}"
    # Of a less similar name, only one that begins alike is worth a hint.
    alike = [known for known in KNOWN_NAMES if known.partition("_")[0] == name.partition("_")[0]]
    intended = _intended(name) or next(iter(difflib.get_close_matches(name, alike, n=1)), None)
    return f"{name} in {source}: unknown setting" + (f"; did you mean {intended}?" if intended else "")


def _intended(name: str) -> str | None:
    """Returns the setting of which `name` is a typing error or the first words, as RATE_LIMIT is; or None.

    One word alone may mean anything.
    """
    longer = sorted(known for known in KNOWN_NAMES if "_" in name and known.startswith(f"{name}_"))
    similar = difflib.get_close_matches(name, KNOWN_NAMES, n=1, cutoff=TYPING_ERROR_RATIO)
    return next(iter(longer or similar), None)


def is_loopback(host: str) -> bool:
    """Returns whether only this machine can reach the address.

    Of all host names, only localhost is trusted.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
