"""`grok-insights up`."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.text import Text

from schemas.errors import Fatal
from schemas.settings import Settings, load_settings
from streams.commands.output import say
from streams.dev.local.ports import free_port
from streams.dev.local.process import ProcessLog
from streams.dev.local.ready import describe_stack
from streams.dev.local.wiring import BrokerName, build_stack

_MAX_FIELD_CHARS = 200
#: If one of them fails, the error shows its last lines.
_ROUTINE_PROCESSES = frozenset({"initdb", "create-database", "kafka-jars", "kafka-format", "migrate", "topics"})
_ROUTINE_LINES = {
    # Everything but errors: each first start warns of what it has to create.
    "kafka": re.compile(r"^(?!\[[^]]+\] (ERROR|FATAL) )"),
    "postgres": re.compile(" LOG:  |FATAL:  the database system is starting up"),
    "tansu": re.compile("tansu broker|listening on: |storage: |ready in "),
}
#: The stack says "gateway is ready".
_ROUTINE_EVENTS = frozenset({"gateway_listening"})
_STYLES = {"warning": "yellow", "error": "red", "critical": "red"}


def up(
    broker: Annotated[
        BrokerName | None,
        typer.Option(help="Broker to start: tansu, the default, or kafka, which is durable and needs Java."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Workers to start.")] = 2,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="The gateway's port (GATEWAY_PORT, 8080); 0 takes any free one."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder for data and logs (DATA_DIR, .grok-insights).")] = None,
    grok_standin: Annotated[bool, typer.Option("--grok-standin", help="Start a stand-in for Grok and ask it.")] = False,
    accept_dead_letters: Annotated[
        int, typer.Option(min=0, help="Dead letters that each worker accepts before DEAD_LETTER_LIMIT applies.")
    ] = 0,
) -> None:
    """Run the whole service in the foreground: broker, Postgres, gateway and workers. Ctrl-C stops it gracefully.

    With KAFKA_BOOTSTRAP_SERVERS or DATABASE_URL set it uses those instead of
    starting its own. All other settings are passed on to the processes.

    Logs go to stderr, shortened on a terminal, and in full to the data folder.
    """
    settings = load_settings()
    data_dir = (data or settings.data_dir).absolute()
    chosen_port = settings.gateway_port if port is None else port
    _check_broker(broker, settings)
    stack = build_stack(
        broker or "tansu",
        workers,
        chosen_port or free_port(),
        data_dir,
        _settings_env(settings),
        ProcessLog(data_dir / "logs" / "stack.log", show=_log_to_stderr()),
        standin=grok_standin,
        accept_dead_letters=accept_dead_letters,
    )
    analyser = _analyser(settings, grok_standin)
    stack.run_until_signal(lambda: typer.echo(describe_stack(stack, settings.topics, analyser)))


def _check_broker(broker: BrokerName | None, settings: Settings) -> None:
    """Says which broker is used if the settings name one. Raises Fatal if the user asks for another one, too."""
    servers = settings.kafka_bootstrap_servers
    if servers is None:
        return
    if broker is not None:
        hint = "unset KAFKA_BOOTSTRAP_SERVERS (or remove it from .env), or leave out --broker to use that broker"
        why = f"it is set to {servers}, and a broker that is set is used instead of starting one"
        raise Fatal(f"--broker {broker} contradicts KAFKA_BOOTSTRAP_SERVERS", why, hint, exit_code=2)
    say(f"no broker is started: KAFKA_BOOTSTRAP_SERVERS is set to {servers}")


def _settings_env(settings: Settings) -> dict[str, str]:
    """Returns the settings that the stack must see wherever they were set, in the environment or a file."""
    env = {}
    if settings.kafka_bootstrap_servers is not None:
        env["KAFKA_BOOTSTRAP_SERVERS"] = settings.kafka_bootstrap_servers
    if settings.database_url is not None:
        env["DATABASE_URL"] = settings.database_url.get_secret_value()
    if settings.asks_grok and settings.grok_model is not None:
        env |= {"ANALYSER": "grok", "GROK_BASE_URL": settings.grok_base_url, "GROK_MODEL": settings.grok_model}
    else:
        env["ANALYSER"] = "local"  # a key alone does not ask for paid calls
    if "topic_partitions" in settings.model_fields_set:
        env["TOPIC_PARTITIONS"] = str(settings.topic_partitions)
    if "kafka_session_timeout_s" in settings.model_fields_set:
        env["KAFKA_SESSION_TIMEOUT_S"] = str(settings.kafka_session_timeout_s)
    return env


def _analyser(settings: Settings, standin: bool) -> str:
    """Returns what analyses the conversations, and what would change that."""
    if standin:
        return "the stand-in for Grok: canned answers, free"
    if settings.analyser == "local":
        return "local: free, English, rough (ANALYSER=local)"
    if not settings.asks_grok:
        return "local: free, English, rough; with XAI_API_KEY and GROK_MODEL set, Grok"
    if settings.grok_model is None:
        return "local: free, English, rough; XAI_API_KEY is set, GROK_MODEL is not"
    return f"Grok, model {settings.grok_model}, paid with XAI_API_KEY"


def _log_to_stderr() -> Callable[[str], None]:
    """Returns what shows the log of all processes: shortened on a terminal, unchanged elsewhere."""
    console = Console(stderr=True)

    def print_shortened(line: str) -> None:
        shown = terminal_line(line)
        if shown is not None:
            console.print(shown, soft_wrap=True)

    return print_shortened if console.is_terminal else say


def terminal_line(line: str) -> Text | None:
    """Returns one line of the stack's log as shown to a person, or None for a line that only the file keeps.

    Only the file keeps the routine messages of broker, Postgres and preparation.
    """
    name, _, text = line.partition(" | ")
    if name in _ROUTINE_PROCESSES or (name in _ROUTINE_LINES and _ROUTINE_LINES[name].search(text)):
        return None
    event = _event(text)
    if event is None:
        return Text(f"{name:<9} | {text}")
    level = str(event.pop("level", "info"))
    if level not in _STYLES and event["event"] in _ROUTINE_EVENTS:
        return None
    return Text(f"{name:<9} | {_shortened(event)}", style=_STYLES.get(level, ""))


def _event(text: str) -> dict[str, Any] | None:
    """Returns the fields of one of our log lines, or None for the output of other programs."""
    try:
        event = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def _shortened(event: dict[str, Any]) -> str:
    time = str(event.pop("timestamp", ""))[11:19]
    words = [time, str(event.pop("event"))]
    event.pop("logger", None)
    # A hint says what to do, often at its end.
    words += [f"{name}={value if name == 'hint' else _short(value)}" for name, value in event.items()]
    return " ".join(words)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= _MAX_FIELD_CHARS else text[:_MAX_FIELD_CHARS] + "..."
