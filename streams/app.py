"""The Faust app for `faust -A streams.app worker`; reads the settings on import, as Faust's own command expects."""

import sys

from schemas.errors import Fatal
from schemas.settings_file import load_settings
from streams.telemetry.log import configure_logging
from streams.wiring import build_worker

try:
    settings = load_settings("kafka_bootstrap_servers", "database_url")
    # Faust sets up logging of its own later; what keeps contents out of our events stays.
    configure_logging(settings.log_level)
    app = build_worker(settings)
except Fatal as error:
    sys.exit(f"{error.what}: {error.why}\nhint: {error.hint}")
