"""Loads Settings, and turns every problem in them into one message that lists them all."""

import difflib
import os

from pydantic import ValidationError

from schemas.errors import Fatal
from schemas.settings import Settings

#: In the environment, whatever begins so is meant for us; other unknown names may belong to other programs.
OUR_PREFIXES = ("GROK_", "XAI_")
#: GROK_INSIGHTS_* steers tests and tools, not the service.
NOT_SETTINGS = ("GROK_INSIGHTS_",)
#: Settings of parts that are not built yet: refused, since who sets a budget relies on it (infra/adr/0004).
NOT_YET = frozenset({"BUDGET_USD_PER_DAY", "GROK_RPM", "GROK_TPM", "LAG_HARD_SECONDS", "STORE_TEXT", "TRUSTED_PROXIES"})
#: How like a setting's name another must be to be taken for a typing error of it (difflib's ratio).
TYPING_ERROR_RATIO = 0.85

KNOWN_NAMES = frozenset(name.upper() for name in Settings.model_fields)


def load_settings(*required: str) -> Settings:
    """Settings from the environment, .env and SECRETS_DIR, the first that names a value winning.

    `required` are field names that the caller cannot do without. Raises Fatal with exit code 2 that lists every
    problem; values are never shown, since they may be secrets.
    """
    problems = _unknown_in_environment()
    settings = _validated(problems)
    if settings is not None:
        problems += [f"{name.upper()}: is needed here" for name in required if getattr(settings, name) is None]
    if settings is None or problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise Fatal("the settings are not usable", f"\n{listed}", "see .env.example for every setting", exit_code=2)
    return settings


def _validated(problems: list[str]) -> Settings | None:
    secrets_dir = os.environ.get("SECRETS_DIR")
    if secrets_dir and not os.path.isdir(secrets_dir):
        problems.append("SECRETS_DIR: is no folder that can be read")
        secrets_dir = None
    try:
        return Settings(_secrets_dir=secrets_dir or None)  # type: ignore[call-arg]
    except ValidationError as error:
        for item in error.errors(include_input=False, include_url=False):
            name = ".".join(str(part) for part in item["loc"]).upper()
            if item["type"] == "extra_forbidden":
                problems.append(_unknown(name, ".env"))
            else:
                text = item["msg"].removeprefix("Value error, ")
                problems += [f"{name}: {text}"] if name else text.splitlines()
        return None


def _unknown_in_environment() -> list[str]:
    names = {name for name in os.environ if not name.startswith(NOT_SETTINGS)} - KNOWN_NAMES
    ours = {name for name in names if name.startswith(OUR_PREFIXES) or name in NOT_YET or _meant(name)}
    return [_unknown(name, "the environment") for name in sorted(ours)]


def _unknown(name: str, source: str) -> str:
    if name in NOT_YET:
        return f"{name} in {source}: is not available in this version; unset it"
    meant = _meant(name) or next(iter(difflib.get_close_matches(name, KNOWN_NAMES, n=1)), None)
    return f"{name} in {source}: is no setting" + (f"; is {meant} meant?" if meant else "")


def _meant(name: str) -> str | None:
    """The setting of which `name` is a typing error, or None."""
    return next(iter(difflib.get_close_matches(name, KNOWN_NAMES, n=1, cutoff=TYPING_ERROR_RATIO)), None)
