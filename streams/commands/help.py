"""How --help lists options: a flag takes no value, so it shows no type."""

from typing import Any

from typer.core import TyperCommand, TyperGroup


class FlagsWithoutType:
    """Hides the type of flags in --help: Typer would list every flag as if it took a `<bool>`."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Returns the parameters, in the order of the help."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params


class Command(FlagsWithoutType, TyperCommand):
    """A command."""


class Group(FlagsWithoutType, TyperGroup):
    """A command with subcommands."""
