"""Instant: a point in time with its offset from UTC, as every message carries it (RFC 3339)."""

from datetime import datetime
from typing import Annotated

import msgspec

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
