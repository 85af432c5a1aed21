"""What the image and the compose file promise without being built: pinned parts, known settings, loopback ports."""

import re
import tomllib
from pathlib import Path

import pytest

from schemas.settings import KNOWN_NAMES, Settings
from tests.support.settings_read import settings_read_by

ROOT = Path(__file__).parents[3]
COMPOSE = (ROOT / "docker-compose.kafka.yml").read_text()
DOCKERFILE = (ROOT / "infra/docker/Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
#: Read by infra/docker/healthcheck.py, and by Python's own libraries.
OTHER_VARIABLES = {"HEALTH_PORT", "HEALTH_PATH", "HTTPS_PROXY", "NO_PROXY"}
_ONLY_TOPICS = "only `topics`, whose code is in the same module, reads it"
#: By service, the settings in its command's code that its containers are not given, and why.
NOT_GIVEN = {
    "migrate": {"TOPIC_PARTITIONS": _ONLY_TOPICS, "TOPIC_REPLICATION_FACTOR": _ONLY_TOPICS},
    "worker": {"DATA_DIR": "the image's own value is the folder that the tmpfs lies on"},
}


def pins(file: str) -> dict[str, str]:
    """Versions by name."""
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^ ;]+)", (ROOT / file).read_text(), re.MULTILINE))


def service(name: str) -> str:
    """The lines of one service of the compose file."""
    services = COMPOSE.split("\nservices:\n")[1].split("\nvolumes:\n")[0]
    blocks: dict[str, str] = dict(re.findall(r"^  (\w+):\n((?:(?:    .*)?\n?)*?)(?=^  \w|\Z)", services, re.MULTILINE))
    return blocks[name]


def variables(text: str) -> set[str]:
    return set(re.findall(r"^\s+([A-Z][A-Z_0-9]*):", text, re.MULTILINE))


def given_to(name: str) -> set[str]:
    """The variables of a service's containers."""
    common = COMPOSE.split("x-common-settings:")[1].split("\nx-after")[0]
    return variables(common + service(name).split("environment:")[1])


def normalised(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9_.-]+", requirement)
    assert name is not None
    return name.group().lower().replace("_", "-")


def test_the_images_locks_are_parts_of_the_projects_lock() -> None:
    """What is tested is what is shipped: same versions, every dependency, and nothing of the extras."""
    whole, runtime, build = (
        pins(file)
        for file in ("requirements.lock", "requirements-runtime.lock", "infra/docker/requirements-build.lock")
    )
    extras = {normalised(item) for group in PROJECT["project"]["optional-dependencies"].values() for item in group}

    assert runtime.items() <= whole.items()
    assert build.items() <= whole.items()
    assert {normalised(item) for item in PROJECT["project"]["dependencies"]} <= runtime.keys()
    assert not extras & runtime.keys()
    assert PROJECT["build-system"]["requires"] == [f"hatchling=={build['hatchling']}"]


def test_every_file_in_the_wheel_reaches_the_build() -> None:
    """.dockerignore lets nothing through but what it names; a folder missing there would be missing in the image."""
    let_through = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    sources = {source for sources in copied for source in sources.split()}

    assert {*wheel["packages"], *wheel["force-include"]} <= set(let_through)
    assert {source for source in sources if not (ROOT / source).exists()} == set()


def test_the_build_fetches_no_front_end() -> None:
    """A `# syntax=` line would be a pull from a registry."""
    assert not re.search(r"^#\s*syntax\s*=", DOCKERFILE, re.MULTILINE | re.IGNORECASE)


@pytest.mark.parametrize("name", ["migrate", "topics", "gateway", "worker"])
def test_containers_are_given_settings_that_exist(name: str) -> None:
    """An unknown name ends a start of the service."""
    assert given_to(name) - KNOWN_NAMES - OTHER_VARIABLES == set()


@pytest.mark.parametrize(
    ("name", "module"), [("migrate", "setup"), ("topics", "setup"), ("gateway", "gateway"), ("worker", "worker")]
)
def test_containers_are_given_every_setting_that_their_command_reads(name: str, module: str) -> None:
    """One that stays outside the container would silently have no effect: give it to the service, or say why not."""
    read = settings_read_by(f"streams.commands.{module}")
    assert read - given_to(name) == NOT_GIVEN.get(name, {}).keys()


def test_a_worker_is_given_what_the_provider_needs() -> None:
    """Each setting of Grok, read or not yet, and the proxy between."""
    grok = {name for name in KNOWN_NAMES if name.startswith(("GROK_", "XAI_", "BUDGET_"))}
    assert len(grok) >= 6
    assert grok | {"HTTPS_PROXY", "NO_PROXY"} <= given_to("worker")


def test_every_port_is_published_on_loopback() -> None:
    """Nothing of the stack asks for a key, so nothing of it may be reached from elsewhere."""
    ports = re.findall(r"^    ports: (.*)$", COMPOSE, re.MULTILINE)

    assert len(ports) == 3
    assert [port.startswith('["127.0.0.1:') for port in ports] == [True] * len(ports)


def test_no_container_leaves_a_volume_without_a_name() -> None:
    """Every volume is named, and the image's own one lies under a tmpfs: `down` leaves no anonymous volume."""
    named = set(re.findall(r"^  ([a-z-]+):$", COMPOSE.split("\nvolumes:\n")[1], re.MULTILINE))
    mounts = re.findall(r'volumes: \["?([^"\]]+)"?\]', COMPOSE) + re.findall(
        r"^      - (\S+:/\S+)$", COMPOSE, re.MULTILINE
    )
    assert {mount.split(":")[0] for mount in mounts if not mount.startswith("./")} == named
    assert re.findall(r"^VOLUME (.+)$", DOCKERFILE, re.MULTILINE) == ["/data"]
    application = COMPOSE.split("x-app:")[1].split("\nx-common")[0]
    assert re.search(r'^  tmpfs: .*"/data:', application, re.MULTILINE)
    assert "tmpfs:" not in "".join(service(name) for name in ("migrate", "topics", "gateway", "worker"))


def test_kafka_and_postgres_may_be_other_ones() -> None:
    """Each address comes from the caller where it has one, with what a login needs."""
    common = COMPOSE.split("x-common-settings:")[1].split("\nx-after")[0]
    assert "KAFKA_BOOTSTRAP_SERVERS: ${KAFKA_BOOTSTRAP_SERVERS:-kafka:9092}" in common
    assert "DATABASE_URL: ${DATABASE_URL:-postgresql://" in common
    login = {name for name in KNOWN_NAMES if name.startswith("KAFKA_SASL_")} | {"KAFKA_SECURITY_PROTOCOL"}
    assert login - variables(common) == set()


def test_workers_can_be_scaled() -> None:
    """A fixed name or port would stop the second one."""
    assert not re.search(r"container_name|ports:", service("worker"))


def test_the_ports_of_probes_are_those_of_the_servers() -> None:
    """Health check and Prometheus ask where gateway and worker listen."""
    prometheus = (ROOT / "infra/prometheus/prometheus.yml").read_text()
    for name, setting in (("gateway", "gateway_port"), ("worker", "worker_metrics_port")):
        port = Settings.model_fields[setting].default
        assert f'{setting.upper()}: "{port}"' in service(name)
        assert f'HEALTH_PORT: "{port}"' in service(name)
        assert f"names: [{name}], type: A, port: {port}" in prometheus
