"""`grok-insights up`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.text import Text

from schemas.settings import Settings, load_settings
from streams.commands.output import say
from streams.dev.local.ports import free_port
from streams.dev.local.process import ProcessLog
from streams.dev.local.wiring import BrokerName, LocalStack, build_stack

_MAX_FIELD_CHARS = 200
#: If one of them fails, the error shows its last lines.
_ROUTINE_PROCESSES = frozenset({"initdb", "create-database"})
_ROUTINE_OF_POSTGRES = (" LOG:  ", "FATAL:  the database system is starting up")
_STYLES = {"warning": "yellow", "error": "red", "critical": "red"}


def up(
    broker: Annotated[BrokerName, typer.Option(help="Broker to start; kafka is durable and needs Java.")] = "tansu",
    workers: Annotated[int, typer.Option(min=1, max=64, help="Workers to start.")] = 2,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="The gateway's port (GATEWAY_PORT, 8080); 0 takes any free one."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder for data and logs (DATA_DIR, .grok-insights).")] = None,
    grok_standin: Annotated[bool, typer.Option("--grok-standin", help="Start a stand-in for Grok and ask it.")] = False,
) -> None:
    """Run the whole service in the foreground: broker, Postgres, gateway and workers. Ctrl-C stops it gracefully.

    With KAFKA_BOOTSTRAP_SERVERS or DATABASE_URL set it uses those instead of
    starting its own. All other settings are passed on to the processes.

    Logs go to stderr, shortened on a terminal, and in full to the data folder.
    """
    settings = load_settings()
    data_dir = (data or settings.data_dir).absolute()
    chosen_port = settings.gateway_port if port is None else port
    stack = build_stack(
        broker,
        workers,
        chosen_port or free_port(),
        data_dir,
        _settings_env(settings),
        ProcessLog(data_dir / "logs" / "stack.log", show=_log_to_stderr()),
        standin=grok_standin,
    )
    stack.run_until_signal(lambda: typer.echo(_ready_block(stack, data_dir)))


def _settings_env(settings: Settings) -> dict[str, str]:
    """Returns the settings that the stack must see wherever they were set, in the environment or a file."""
    env = {}
    if settings.kafka_bootstrap_servers is not None:
        env["KAFKA_BOOTSTRAP_SERVERS"] = settings.kafka_bootstrap_servers
    if settings.database_url is not None:
        env["DATABASE_URL"] = settings.database_url.get_secret_value()
    if settings.analyser == "auto" and settings.grok_model is None:
        env["ANALYSER"] = "local"  # a key that lies around is no wish to pay
    if "kafka_session_timeout_s" in settings.model_fields_set:
        env["KAFKA_SESSION_TIMEOUT_S"] = str(settings.kafka_session_timeout_s)
    return env


def _ready_block(stack: LocalStack, data_dir: Path) -> str:
    addresses = stack.addresses
    url = f"{addresses.gateway_url}/api/v1/conversations"
    lines = [
        ("gateway", addresses.gateway_url),
        ("try it", f"""curl {url} --json '{{"text": "My order is late."}}'"""),
        ("", f"curl {addresses.gateway_url}/api/v1/insights"),
        ("metrics", f"{addresses.gateway_url}/metrics"),
        *(("", url) for url in addresses.worker_metrics_urls),
        ("broker", addresses.bootstrap_servers),
        *([("stand-in", f"{addresses.standin_url}/control/stats")] if addresses.standin_url else []),
        ("logs", str(stack.log.path)),
        ("data", str(data_dir)),
    ]
    shown = "\n".join(f"  {label:<10}{value}" for label, value in lines)
    return f"\ngrok-insights is ready\n{shown}\n  Ctrl-C stops everything.\n"


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

    Only the file keeps the routine messages of Postgres and of libraries, which log hundreds at each start.
    """
    name, _, text = line.partition(" | ")
    if name in _ROUTINE_PROCESSES or any(routine in text for routine in _ROUTINE_OF_POSTGRES):
        return None
    event = _event(text)
    if event is None:
        return Text(f"{name:<9} | {text}")
    level = str(event.pop("level", "info"))
    if level not in _STYLES and not str(event["event"]).isidentifier():
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
    words += [f"{name}={_short(value)}" for name, value in event.items()]
    return " ".join(words)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= _MAX_FIELD_CHARS else text[:_MAX_FIELD_CHARS] + "..."
