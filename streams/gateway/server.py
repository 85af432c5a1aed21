"""The aiohttp application: routes and what surrounds them. Builds nothing, connects to nothing."""

from aiohttp import web

from schemas.conversation import MAX_VALUE_BYTES
from streams.gateway.drain import DRAIN, Drain
from streams.gateway.health_routes import show_health
from streams.gateway.middlewares import Measured, explained, limited
from streams.gateway.parts import PARTS, Parts
from streams.gateway.routes import accept_conversation, list_insights, show_conversation
from streams.telemetry.server import probe_routes

#: Checks of `Parts.health` that /readyz asks for; lag is for /health only, a slow worker does not stop the gateway.
BROKER = "broker"
DATABASE = "database"
LAG = "lag"
READY_CHECKS = (BROKER, DATABASE)


def build_application(parts: Parts) -> web.Application:
    """Ready to be run; `parts` stay the caller's to start and to close."""
    drain = Drain()
    application = web.Application(
        # From the outside in: what `explained` makes of an error is still counted.
        middlewares=[drain.middleware, Measured().middleware, explained, limited],
        client_max_size=MAX_VALUE_BYTES,
    )
    application[PARTS] = parts
    application[DRAIN] = drain
    application.add_routes(
        [
            web.post("/api/v1/conversations", accept_conversation),
            web.get("/api/v1/conversations/{id:[^/]+}", show_conversation),
            web.get("/api/v1/insights", list_insights),
            web.get("/health", show_health),
            *probe_routes(parts.health, READY_CHECKS),
        ]
    )
    return application
