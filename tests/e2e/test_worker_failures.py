"""How a worker ends when it cannot work: soon, with the reason, and without losses."""

import asyncio
import json
import os
import subprocess
import sys
import sysconfig
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from streams.dev.local.postgres import Postgres
from tests.e2e.producer import produce
from tests.e2e.rows import count_rows
from tests.support.processes import ROOT, Process, Service, get
from tests.support.waiting import wait_until

#: `grok-insights worker` with a defect that texts with a marker trip, and whose message quotes them.
DEFECTIVE_WORKER = """
import sys
import agents.analyst
from streams.cli import main
sound = agents.analyst.low_value
def defective(text):
    if "#defect" in text:
        raise ZeroDivisionError(text)
    return sound(text)
agents.analyst.low_value = defective
sys.argv = ["grok-insights", "worker"]
main()
"""

on_tansu = pytest.mark.parametrize("broker", ["tansu"], indirect=True)


@pytest.mark.kafka
@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
def test_missing_topics_are_named(bare_service: Service) -> None:
    """The error names the command that creates them. (Tansu creates a topic on request.)

    `check` names all, a worker those that it uses: all but the ledger of replays.
    """
    topics = bare_service.topics
    used = {*topics.inputs, topics.answers_changelog, topics.insights, topics.dead_letters}
    worker = bare_service.start("worker", "worker", WORKER_METRICS_PORT="0")
    check = bare_service.start("check", "check", "--json")
    assert (worker.process.wait(30), check.process.wait(30)) == (1, 1)
    assert "grok-insights topics" in worker.log.read_text()
    assert set(worker.events()[-1]["why"].split(", ")) == used
    [missing] = [found["detail"] for found in check.events()[0]["checks"] if found["name"] == "topics"]
    named = missing.removeprefix("topics are missing: ").partition(";")[0]
    assert set(named.split(", ")) == used | {topics.replay_ledger}


@pytest.mark.kafka
@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
def test_a_session_timeout_that_the_brokers_refuse_is_named(service: Service) -> None:
    """The worker ends soon, instead of waiting without end for a group that does not take it."""
    worker = service.start("worker", "worker", WORKER_METRICS_PORT="0", KAFKA_SESSION_TIMEOUT_S="2")
    assert worker.process.wait(30) == 1
    [failed] = [event for event in worker.events() if event["event"] == "worker_failed"]
    assert failed["error"] == "the brokers refuse this worker in its consumer group"
    assert failed["why"] == f"{service.topics.consumer_group}: InvalidSessionTimeoutError"
    assert failed["hint"].startswith(
        "set KAFKA_SESSION_TIMEOUT_S, which is 2, to a value from group.min.session.timeout"
    )


@on_tansu
def test_brokers_that_cannot_be_reached_are_named(service: Service) -> None:
    """With address and cause: once in the logs of those that wait for them, and as the error of those that do not."""
    closed = f"127.0.0.1:{service.free_port()}"
    settings = {"KAFKA_BOOTSTRAP_SERVERS": closed, "WORKER_METRICS_PORT": "0", "GATEWAY_PORT": "0"}
    ends = [service.start(name, name, **settings) for name in ("topics", "audit")]
    waits = {
        "waiting_for_start": service.start("worker", "worker", **settings),
        "broker_unreachable": service.start("gateway", "gateway", **settings),
    }
    for process in ends:
        assert process.process.wait(30) == 1
        assert f"  why: no connection to {closed}: Connection refused\n" in process.log.read_text()
    for event, process in waits.items():
        wait_until(partial(_has_event, process, event), timeout_s=30, what=event)
        [why] = [found["why"] for found in process.events() if found["event"] == event]
        assert why.startswith(f"no connection to {closed}: Connection refused; check KAFKA_BOOTSTRAP_SERVERS")


def _has_event(process: Process, event: str) -> bool:
    return event in process.log.read_text()


@on_tansu
def test_a_database_without_tables_is_named(service: Service, postgres: Postgres) -> None:
    """The hint names the command that helps."""
    worker = service.start("worker", "worker", WORKER_METRICS_PORT="0", DATABASE_URL=postgres.url)
    assert worker.process.wait(30) == 1
    events = worker.events()
    assert "grok-insights migrate" in events[-1]["hint"]
    assert [event["level"] for event in events].count("error") == 1


@on_tansu
async def test_a_wrong_key_keeps_the_worker_up_and_not_ready(service: Service, rows: asyncpg.Connection) -> None:
    """It is named in the provider's words, and no conversation is touched: with the right key each gets its answer."""
    service.start_standin("--api-key", "right", "--latency-max-s", "0", "--latency-min-s", "0")
    await produce(service, [f"where is my parcel number {n}" for n in range(20)])
    port = service.free_port()
    wrong = service.start("wrong", "worker", WORKER_METRICS_PORT=str(port), XAI_API_KEY="wrong-secret-key")
    url = f"http://127.0.0.1:{port}"
    reason = await asyncio.to_thread(wait_until, lambda: refusal_of(url), timeout_s=45, what="the key is named")
    where = f"127.0.0.1:{service.standin_port}"
    assert reason == f"check XAI_API_KEY: {where} answered with status 400: Incorrect API key provided."
    assert (wrong.process.poll(), get(f"{url}/livez")[0]) == (None, 200)
    assert await asyncio.to_thread(wrong.stop) == 0
    text = wrong.log.read_text()
    assert text.count("check XAI_API_KEY") == 2, "once in the health check, once by the start"
    assert "wrong-secret-key" not in text
    service.settings["XAI_API_KEY"] = "right"
    await asyncio.to_thread(service.start_worker, "right")
    await count_rows(rows, 20, timeout_s=30, where="outcome = 'analysed'")
    assert service.standin("control/stats")["calls"] == 20


@on_tansu
async def test_an_outage_of_the_provider_shows_in_health_and_not_in_readiness(service: Service) -> None:
    """A restart would not help. /health names the provider, the log has one line, the metrics what is in flight."""
    service.start_standin("--latency-max-s", "0", "--latency-min-s", "0", "--fault", "http_500")
    worker = await asyncio.to_thread(service.start_worker, "worker")
    await produce(service, [f"where is my parcel number {n}" for n in range(20)])
    reason = await asyncio.to_thread(wait_until, lambda: outage_of(worker.url), timeout_s=30, what="the outage shows")
    assert reason.startswith("127.0.0.1 fails (server, status 500): An internal error occurred.; calls have paused")
    assert get(f"{worker.url}/readyz")[0] == 200
    metrics = get(f"{worker.url}/metrics")[1].decode()
    assert "\ngrok_calls_in_flight " in metrics
    assert "\ngrok_oldest_call_age_seconds " in metrics
    assert worker.log.read_text().count("grok_calls_paused") == 1


@on_tansu
async def test_a_defect_holds_its_record_back_until_a_sound_worker_comes(
    service: Service, rows: asyncpg.Connection
) -> None:
    """Other records continue; it does not become a dead letter, its place is logged, its text is not, and it is not
    skipped."""
    await produce(service, ["#defect my card is 4111 1111", *(f"where is my parcel number {n}" for n in range(20))])
    port = service.free_port()
    settings = {"WORKER_METRICS_PORT": str(port), "DATA_DIR": str(service.folder / "defective")}
    defective = service.start_command("defective", [sys.executable, "-c", DEFECTIVE_WORKER], **settings)
    await count_rows(rows, 20, timeout_s=60, where="outcome <> 'dead'")
    status, body = get(f"http://127.0.0.1:{port}/health")
    assert json.loads(body)["checks"]["held_back"].startswith("records held back by unforeseen errors: 1;")
    assert (status, get(f"http://127.0.0.1:{port}/readyz")[0]) == (200, 200)
    assert "\nrecords_held_back 1.0\n" in get(f"http://127.0.0.1:{port}/metrics")[1].decode()
    assert await asyncio.to_thread(defective.stop) == 0
    assert defective.log.read_text().count('"record_held_back"') == 1
    assert "4111" not in defective.log.read_text()
    await asyncio.to_thread(service.start_worker, "sound")
    await count_rows(rows, 21, timeout_s=30, where="outcome <> 'dead'")


@on_tansu
@pytest.mark.slow
async def test_a_defect_that_many_records_trip_stops_the_worker(service: Service, rows: asyncpg.Connection) -> None:
    """The error says what to do. No record becomes a dead letter."""
    await produce(service, [f"#defect my card is 4111 1111 {n}" for n in range(25)])
    worker = service.start_command("defective", [sys.executable, "-c", DEFECTIVE_WORKER], WORKER_METRICS_PORT="0")
    assert await asyncio.to_thread(worker.process.wait, 60) == 1
    log = worker.log.read_text()
    assert "unforeseen errors keep records from being processed" in log
    assert "4111" not in log
    assert await rows.fetchval("SELECT count(*) FROM insights") == 0


@on_tansu
def test_fausts_own_command_runs_the_worker_without_its_web_server(service: Service, tmp_path: Path) -> None:
    """`faust -A streams.app worker` works, and opens no port of Faust's: it would show the table to anyone."""
    port = service.free_port()
    faust = Path(sysconfig.get_path("scripts")) / "faust"
    settings = {"WORKER_METRICS_PORT": str(port), "DATA_DIR": str(tmp_path / "faust")}
    worker = service.start_command("faust", [str(faust), "-A", "streams.app", "worker"], **settings)
    wait_until(lambda: get(f"http://127.0.0.1:{port}/readyz")[0] == 200, timeout_s=60, what="the worker is ready")
    assert ":19AA " not in listening(worker.process.pid)  # 6066
    assert worker.stop() in {0, 1}


@on_tansu
def test_fausts_own_command_logs_no_contents(service: Service) -> None:
    """A step that fails on a conversation logs type and place, never its contents."""
    program = """
import structlog
from streams.app import app
log = structlog.get_logger()
try:
    text, api_key = "my card number", "xai-secret"
    raise ZeroDivisionError
except ZeroDivisionError:
    log.exception("step_failed", text=text)
"""
    environment = {**os.environ, **service.settings, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert "step_failed" in done.stderr
    assert "card number" not in done.stdout + done.stderr
    assert "xai-secret" not in done.stdout + done.stderr


def refusal_of(url: str) -> str:
    """Returns what /readyz reports about the provider once it has been asked."""
    status, body = get(f"{url}/readyz")
    reason = json.loads(body)["checks"].get("provider", "") if status == 503 else ""
    return "" if reason == "not asked yet" else reason


def outage_of(url: str) -> str:
    """Returns what /health reports about the calls to the provider while they pause."""
    status, body = get(f"{url}/health")
    report = json.loads(body) if status == 200 else {"status": "", "checks": {}}
    return report["checks"]["provider_calls"] if report["status"] == "degraded" else ""


def listening(pid: int) -> str:
    """The process's view of listening TCP sockets (state 0A), local ports in hexadecimal."""
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    mine = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    return "\n".join(line for line in lines if " 0A " in line and f"socket:[{line.split()[9]}]" in mine)
