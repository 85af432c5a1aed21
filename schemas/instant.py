"""Instant: a timestamp with a UTC offset, as in all messages (RFC 3339)."""

from datetime import datetime
from typing import Annotated

import msgspec

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
