"""Files that say in other languages what the code says: JSON Schemas of the messages, .env.example of the settings."""

import inspect
import json
from typing import Any

import msgspec
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from schemas.conversation import Conversation
from schemas.insight import Answer, Insight
from schemas.result import ConversationResult
from schemas.settings import Settings

#: JSON Schema file of each message: what is sent, what is answered, what is stored, what is announced.
MESSAGES: dict[str, type[msgspec.Struct]] = {
    "conversation": Conversation,
    "insight": Insight,
    "answer": Answer,
    "result": ConversationResult,
}

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_HEADER = """\
# Every setting of grok-insights with its default. Copy to .env and change what you need. The environment wins over
# .env, and .env over files of the same names under SECRETS_DIR. Written by: grok-insights schemas
"""


def generated_files() -> dict[str, str]:
    """Path in the checkout -> content."""
    files = {f"schemas/json/{name}.json": _schema_text(message) for name, message in MESSAGES.items()}
    files[".env.example"] = env_example()
    return files


def env_example() -> str:
    """All settings, commented out, each below its meaning."""
    return _HEADER + "".join(_setting_text(name, field) for name, field in Settings.model_fields.items())


def _schema_text(message: type[msgspec.Struct]) -> str:
    schema: dict[str, Any] = {"$schema": _DIALECT, **msgspec.json.schema(message)}
    for definition in schema["$defs"].values():
        definition["description"] = inspect.cleandoc(definition["description"])
    return json.dumps(schema, indent=2) + "\n"


def _setting_text(name: str, field: FieldInfo) -> str:
    default = "" if field.default in (None, PydanticUndefined) else _shown(field.default)
    return f"\n# {field.description}\n# {name.upper()}={default}\n"


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value}"
