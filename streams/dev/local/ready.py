"""The text that `up` prints once the local stack is ready: addresses, commands to try, and what its broker keeps."""

import shlex

from schemas.kafka import Topics
from streams.dev.local.brokers import Tansu
from streams.dev.local.postgres import Postgres, psql_program
from streams.dev.local.wiring import LocalStack

EXAMPLE = '{"id": "conv-1", "text": "I was charged twice and want my money back"}'


def describe_stack(stack: LocalStack, topics: Topics, analyser: str) -> str:
    """Returns lines of at most two columns. The database's URL is shown, with its password, only if it is our own."""
    addresses, gateway = stack.addresses, stack.addresses.gateway_url
    lines = [
        ("analyser", analyser),
        ("gateway", gateway),
        ("metrics", f"{gateway}/metrics"),
        *(("", url) for url in addresses.worker_metrics_urls),
        *([("stand-in", f"{addresses.standin_url}/control/stats")] if addresses.standin_url else []),
        ("topics", f"{topics.conversations} -> {topics.insights}; dead letters in {topics.dead_letters}"),
        *_broker_lines(stack),
        *_database_lines(addresses.database),
        ("logs", str(stack.log.path)),
        ("", ""),
        ("try it", f"curl {gateway}/api/v1/conversations -H 'content-type: application/json' -d '{EXAMPLE}'"),
        ("", f"curl {gateway}/api/v1/conversations/conv-1"),
        ("", f"curl '{gateway}/api/v1/insights?since=1h'"),
        ("then", "grok-insights audit    checks that each record has one outcome; needs the two settings above"),
        ("", "grok-insights dlq list shows the records that could not be processed"),
    ]
    shown = "\n".join(f"  {label:<10}{value}".rstrip() for label, value in lines)
    return f"\ngrok-insights is ready\n{shown}\n\n  Ctrl-C stops everything.\n"


def _broker_lines(stack: LocalStack) -> list[tuple[str, str]]:
    lines = [("broker", f"KAFKA_BOOTSTRAP_SERVERS={stack.addresses.bootstrap_servers}")]
    if any(isinstance(service, Tansu) for service in stack.services):
        lines.append(("", "Tansu keeps its topics in memory: the next start is empty. --broker kafka keeps them."))
        if isinstance(stack.addresses.database, str):
            lines.append(("", "Rows of earlier starts stay in your database; `audit` calls them orphaned."))
    return lines


def _database_lines(database: Postgres | str) -> list[tuple[str, str]]:
    if isinstance(database, str):
        return [("database", "as set in DATABASE_URL")]
    url = shlex.quote(database.url)
    return [("database", f"DATABASE_URL={url}"), ("", f"{psql_program()} {url}")]
