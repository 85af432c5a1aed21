"""Builds the aiohttp application: routes and middleware. Connects to nothing."""

from aiohttp import web

from schemas.conversation import MAX_VALUE_BYTES
from streams.gateway.middleware import DRAIN, Drain, RequestMetrics, errors_to_problems, rate_limit
from streams.gateway.routes import (
    DEPENDENCIES,
    Dependencies,
    accept_conversation,
    list_insights,
    show_conversation,
    show_health,
)
from streams.telemetry.server import probe_routes

#: Names of the checks in `Dependencies.health`.
BROKER = "broker"
DATABASE = "database"
LAG = "lag"
#: /readyz leaves out the lag: a slow worker must not take the gateway out of service.
READY_CHECKS = (BROKER, DATABASE)


def build_application(dependencies: Dependencies) -> web.Application:
    """Returns the application; the caller runs it, and starts and closes the dependencies."""
    drain = Drain()
    application = web.Application(
        # Outermost first: the metrics count the responses that errors become.
        middlewares=[drain.middleware, RequestMetrics().middleware, errors_to_problems, rate_limit],
        client_max_size=MAX_VALUE_BYTES,
    )
    application[DEPENDENCIES] = dependencies
    application[DRAIN] = drain
    application.add_routes(
        [
            web.post("/api/v1/conversations", accept_conversation),
            web.get("/api/v1/conversations/{id:[^/]+}", show_conversation),
            web.get("/api/v1/insights", list_insights),
            web.get("/health", show_health),
            *probe_routes(dependencies.health, READY_CHECKS),
        ]
    )
    return application
