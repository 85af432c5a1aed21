"""The container engine of this machine, through its command line; tests that need it skip with the reason."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: The same variables as in docker-compose.kafka.yml, so that one choice serves both.
KAFKA_IMAGE = os.environ.get("KAFKA_IMAGE") or "apache/kafka:4.3.1"
POSTGRES_IMAGE = os.environ.get("POSTGRES_IMAGE") or "postgres:15"
PROMETHEUS_IMAGE = os.environ.get("PROMETHEUS_IMAGE") or "prom/prometheus:v2.42.0"
PYTHON_IMAGE = "python:3.11-slim"


def require_images(*images: str) -> None:
    """Skips the test, with the reason, where no engine answers or it lacks one of `images`: nothing is pulled.

    Fails instead where GROK_INSIGHTS_TEST_REQUIRE names docker, so that CI cannot pass without.
    """
    reason = _why_not(images)
    if reason is not None and "docker" in os.environ.get("GROK_INSIGHTS_TEST_REQUIRE", "").split(","):
        pytest.fail(f"a container engine is required here: {reason}")
    if reason is not None:
        pytest.skip(reason)


def _why_not(images: tuple[str, ...]) -> str | None:
    if shutil.which("docker") is None:
        return "the command docker is not installed"
    if docker("version", "--format", "{{.Server.Version}}", check=False).returncode:
        return "no container engine answers"
    missing = [image for image in images if docker("image", "inspect", image, check=False).returncode]
    return f"the container engine has no image {', '.join(missing)}" if missing else None


def docker(
    *arguments: str, check: bool = True, timeout_s: float = 60, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Runs `docker` in the repository's root; raises AssertionError with its output when it fails and `check` is set.

    `environment` replaces this process's own.
    """
    done = subprocess.run(
        ["docker", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(arguments)} failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done
