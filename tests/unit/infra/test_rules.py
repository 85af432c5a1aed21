"""Alert rules name metrics that exist; promtool's own tests of the rules run where a container engine answers."""

import re
from pathlib import Path

import pytest

from schemas.settings import Settings
from streams.telemetry.metrics import REGISTRY
from tests.support.container_engine import PROMETHEUS_IMAGE, docker, require_images

PROMETHEUS = Path(__file__).parents[3] / "infra/prometheus"
RULES = (PROMETHEUS / "rules/grok-insights.yml").read_text()
#: `expr:` with what follows on its line or, folded, on the deeper indented lines below.
EXPRESSIONS = re.findall(r"^        expr: (?:>-\n)?((?:.*\n)(?:          .*\n)*)", RULES, re.MULTILINE)
#: Everything in PromQL that holds names other than metrics: label matchers, ranges, label lists, numbers with units.
NO_METRICS = re.compile(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring)\s*\([^)]*\)|\b\d+\w*")
KEYWORDS = {"or", "and", "unless", "offset", "bool"}


def metric_names() -> set[str]:
    """The names that queries use: counters have their suffix there."""
    return {f"{family.name}_total" if family.type == "counter" else family.name for family in REGISTRY.collect()}


def names_in(expression: str) -> set[str]:
    names = set(re.findall(r"\b[a-z_]+\b(?!\s*\()", NO_METRICS.sub("", expression)))
    return names - KEYWORDS


def test_every_metric_of_a_rule_exists() -> None:
    """A rule on a metric that does not exist never fires, unnoticed. `up` is Prometheus's own."""
    assert len(EXPRESSIONS) == RULES.count("- alert:")
    used = set().union(*map(names_in, EXPRESSIONS))

    assert len(used) >= 4
    assert used - {"up"} <= metric_names()


def test_every_metric_of_an_annotation_exists() -> None:
    """Annotations point a person only to existing metrics."""
    assert set(re.findall(r"\b[a-z_]+_total\b", RULES)) <= metric_names()


def test_every_alert_waits_and_says_what_it_means() -> None:
    """No alert fires on a single scrape; each has severity, summary and description."""
    alerts = RULES.split("- alert:")[1:]

    for part in ("        for: ", "severity: ", "summary: ", "description: "):
        assert [part in alert for alert in alerts] == [True] * len(alerts), part


def test_lag_is_high_where_the_service_says_so() -> None:
    """The rule's threshold is the default of LAG_SOFT_SECONDS, in seconds and not in records."""
    soft = Settings.model_fields["lag_soft_seconds"].default

    assert f"max(conversations_lag_seconds) > {soft:g}\n        for: 10m" in RULES
    assert f"max(conversations_lag_seconds) > {soft:g} and max(up" in RULES


def test_the_operator_learns_what_to_do_about_each_alert() -> None:
    """Each has a row in the table of docs/operating.md."""
    page = (PROMETHEUS.parents[1] / "docs/operating.md").read_text()
    named = {word for cell in re.findall(r"^\| (.*?) \|", page, re.MULTILINE) for word in re.findall(r"\w+", cell)}
    assert set(re.findall(r"- alert: (\w+)", RULES)) <= named


@pytest.mark.docker
@pytest.mark.parametrize(
    "command", [("check", "config", "prometheus.yml"), ("test", "rules", "tests/grok-insights.test.yml")]
)
def test_promtool_agrees(command: tuple[str, str, str]) -> None:
    """Configuration and rules load, and each alert fires for its cause and not before."""
    require_images(PROMETHEUS_IMAGE)
    *tool, file = command
    container = ("run", "--rm", "--network", "none", "-v", f"{PROMETHEUS}:/prometheus-files:ro")

    done = docker(*container, "--entrypoint", "promtool", PROMETHEUS_IMAGE, *tool, f"/prometheus-files/{file}")

    assert "SUCCESS" in done.stdout + done.stderr
