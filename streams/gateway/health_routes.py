"""/health: what a person or a dashboard asks first, with the failing check by name."""

from typing import Any

from aiohttp import web

from streams.gateway.parts import PARTS
from streams.gateway.responses import json_response
from streams.kafka.lag import Lag
from streams.telemetry.health import OK, HealthReport


async def show_health(request: web.Request) -> web.Response:
    """200 also when degraded: the gateway answers, and the body says what does not."""
    parts = request.app[PARTS]
    report = await parts.health.report()
    return json_response(health_summary(report, parts.lag.latest, parts.lag_soft_s))


def health_summary(report: HealthReport, lag: Lag | None, lag_soft_s: float) -> dict[str, Any]:
    """Degraded: a check fails, no worker is in the group, or the oldest record is older than `lag_soft_s` seconds."""
    checks = {**report.checks}
    if lag is not None:
        checks["worker"] = OK if lag.worker_running else "no worker is in the consumer group"
        if lag.seconds > lag_soft_s:
            checks["lag"] = f"the oldest unfinished record is {lag.seconds:.0f} s old, more than {lag_soft_s:g} s"
    return {
        "status": OK if all(state == OK for state in checks.values()) else "degraded",
        "lag_records": lag.records if lag else None,
        "lag_seconds": round(lag.seconds, 3) if lag else None,
        "worker_running": lag.worker_running if lag else False,
        "checks": checks,
    }
