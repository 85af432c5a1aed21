"""How conversations move and how that is seen: gateway, pipeline, sinks, telemetry, commands."""
