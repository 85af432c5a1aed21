"""Hypothesis' settings for unit tests: results must not depend on how fast or busy the machine is."""

from hypothesis import HealthCheck, settings

# On a fresh clone the first text takes over a second, since Hypothesis builds its table of all characters.
settings.register_profile("unit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")
