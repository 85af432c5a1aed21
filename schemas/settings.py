"""Every setting: name, unit, default and meaning. `.env.example` and the README's table are made from this file."""

import ipaddress
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.kafka import Topics

#: What Kafka takes in a topic's name.
_TOPIC_CHARACTERS = r"^[a-zA-Z0-9._-]*$"


class Settings(BaseSettings):
    """Read once at start from the environment, then .env, then files named like the settings under SECRETS_DIR."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_file=".env", env_ignore_empty=True, hide_input_in_errors=True
    )

    # --- Kafka ---
    kafka_bootstrap_servers: str | None = Field(None, description="brokers, host:port with commas between")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="how brokers are spoken to"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="SASL mechanism, with a SASL protocol"
    )
    kafka_sasl_username: str | None = Field(None, description="SASL user")
    kafka_sasl_password: SecretStr | None = Field(None, description="SASL password")
    kafka_ssl_cafile: Path | None = Field(None, description="CA certificates for the brokers; the system's if unset")
    kafka_ssl_certfile: Path | None = Field(None, description="our certificate, where brokers ask for one")
    kafka_ssl_keyfile: Path | None = Field(None, description="the certificate's key")
    topic_prefix: str = Field(
        "",
        pattern=_TOPIC_CHARACTERS,
        max_length=100,
        description="start of every topic name, such as staging.; lets several environments share a cluster",
    )
    consumer_group: str | None = Field(
        None,
        pattern=_TOPIC_CHARACTERS,
        min_length=1,
        max_length=100,
        description="consumer group of the workers; TOPIC_PREFIX followed by grok-insights if unset",
    )
    kafka_session_timeout_s: float = Field(
        10,
        ge=1,
        le=300,
        description="seconds without a heartbeat after which a worker is replaced; Apache Kafka refuses less than 6",
    )
    kafka_rebalance_timeout_s: float = Field(
        12, ge=2, le=300, description="seconds a worker has to rejoin the group; half of it is for calls in flight"
    )
    topic_partitions: int = Field(8, ge=1, le=1000, description="partitions of each topic, used by `topics`")
    topic_replication_factor: int = Field(1, ge=1, le=9, description="replicas of each partition, used by `topics`")

    # --- Postgres ---
    database_url: SecretStr | None = Field(None, description="postgresql://user:password@host:port/database")

    # --- Analysis ---
    analyser: Literal["auto", "grok", "local"] = Field(
        "auto", description="grok, local (free, VADER), or auto: grok where XAI_API_KEY is set"
    )
    xai_api_key: SecretStr | None = Field(None, description="key for the Grok API")
    grok_base_url: str = Field("https://api.x.ai/v1", pattern="^https?://", description="where the Grok API answers")
    grok_model: str | None = Field(None, description="model; to be named when Grok is asked, since models retire")
    grok_timeout_s: float = Field(60, gt=0, le=3600, description="seconds after which a call is given up")
    grok_batch_max: int = Field(1, ge=1, le=1, description="conversations in one call; only 1 is possible so far")
    grok_cost_per_1k: float | None = Field(
        None, ge=0, description="USD per 1,000 tokens, where a reply names no cost of its own"
    )
    max_in_flight: int = Field(512, ge=1, le=100_000, description="calls in flight at once, per worker")
    linger_ms: float = Field(
        10, ge=0, le=1000, description="milliseconds for which answers, rows and events gather into one batch"
    )
    cooldown_seconds: float = Field(10, gt=0, description="pause of the circuit breaker, in seconds")
    breaker_errors: int = Field(5, ge=1, description="errors in a row that open the circuit breaker")
    cache_ttl_days: float = Field(30, gt=0, description="how long an answer serves equal texts, in days")

    # --- Gateway ---
    gateway_host: str = Field("127.0.0.1", description="address to listen on; beyond loopback needs ALLOW_ANONYMOUS")
    gateway_port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes any free one")
    allow_anonymous: bool = Field(False, description="true: let the gateway listen beyond loopback without keys")
    rate_limit_per_minute: int = Field(600, ge=1, description="requests a minute and client IP address")

    # --- Worker ---
    worker_metrics_host: str = Field("127.0.0.1", description="address of the worker's /metrics and /readyz")
    worker_metrics_port: int = Field(8081, ge=0, le=65535, description="port of the worker's /metrics; 0 takes any")
    lag_soft_seconds: float = Field(30, gt=0, description="age of the oldest unfinished record that is still ok")

    # --- Both ---
    data_dir: Path = Field(Path(".grok-insights"), description="RocksDB tables, the local stack's data, logs")
    secrets_dir: Path | None = Field(
        None, description="folder with files named like settings; itself read from the environment only"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        """Values that are wrong only together; each message names the settings to change."""
        problems = [text for wrong, text in self._wrong_together() if wrong]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _wrong_together(self) -> list[tuple[bool, str]]:
        sasl = self.kafka_security_protocol.startswith("SASL")
        has_login = self.kafka_sasl_username is not None and self.kafka_sasl_password is not None
        return [
            (self.asks_grok and self.grok_model is None, "GROK_MODEL: name the model to ask, for Grok is the analyser"),
            (self.analyser == "grok" and self.xai_api_key is None, "XAI_API_KEY: is needed with ANALYSER=grok"),
            (sasl and not has_login, "KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD: are needed with a SASL protocol"),
            (
                not self.allow_anonymous and not is_loopback(self.gateway_host),
                "GATEWAY_HOST: listening beyond loopback lets anyone in; set ALLOW_ANONYMOUS=true if that is meant",
            ),
        ]

    @property
    def topics(self) -> Topics:
        """Names of this environment's topics and consumer group."""
        return Topics(self.topic_prefix, self.consumer_group or f"{self.topic_prefix}grok-insights")

    @property
    def asks_grok(self) -> bool:
        """Whether conversations leave for the Grok API: asked for, or `auto` with a key at hand."""
        return self.analyser == "grok" or (self.analyser == "auto" and self.xai_api_key is not None)


def is_loopback(host: str) -> bool:
    """True for addresses that only this machine reaches; a name other than localhost is not trusted to be one."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
