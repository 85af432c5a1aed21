"""Topics and group of one run, so that many runs share a broker without meeting."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Names:
    """Everything that schemas.topics names, for the run `run`."""

    run: str

    @property
    def group(self) -> str:
        return f"grok-insights-{self.run}"

    @property
    def changelog(self) -> str:
        """Faust derives it from the group and the table."""
        return f"{self.group}-answers-changelog"

    def topic(self, name: str) -> str:
        """The run's own of a topic of the service."""
        return f"{self.run}.{name}"
