"""The Faust app for `faust -A streams.app worker`; reads the settings on import, as Faust's own command expects."""

import sys

from schemas.errors import Fatal
from schemas.settings_file import load_settings
from streams.telemetry.log import keep_contents_out
from streams.wiring import build_worker

keep_contents_out()
try:
    app = build_worker(load_settings("kafka_bootstrap_servers", "database_url"))
except Fatal as error:
    sys.exit(f"{error.what}: {error.why}\nhint: {error.hint}")
