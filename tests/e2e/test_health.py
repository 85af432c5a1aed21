"""Readiness of worker and gateway follows a dependency that dies, freezes or returns; liveness never does.

Both depend on the broker and on Postgres. The gateway's readiness includes both on purpose: without one of them half of
its routes answer 503, and another gateway may reach what this one does not.
"""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from streams.dev.local.brokers import Kafka
from streams.dev.local.ports import free_port
from streams.dev.local.postgres import Postgres
from streams.postgres.migrations import migrate_database
from tests.e2e.producer import produce, texts_with_repeats
from tests.support.process_tree import continue_tree, kill_tree, stop_tree
from tests.support.processes import Service, get
from tests.support.servers import running, skip_unless_kafka
from tests.support.waiting import wait_until

WITHIN_S = 3.0
POLL_EVERY_S = 0.1
#: How long a probe is waited for, and how long a flip: beyond WITHIN_S, so that what is too late is measured too.
PATIENCE_S = 30.0
#: Answers that must stay the same after a flip: some of them are new findings, not kept ones. Not more, for the broker
#: must be back within the session timeout: a worker that lost its partitions is rightly not ready.
STEADY_ANSWERS = 6
READY, NOT_READY, SILENT = 200, 503, 0


class Answer(NamedTuple):
    """The response to one probe; `status` is SILENT where there was none."""

    asked_at_s: float
    came_at_s: float
    status: int


class Probe(threading.Thread):
    """Asks one path every POLL_EVERY_S, as an orchestrator would, and keeps the answers."""

    def __init__(self, name: str, url: str) -> None:
        super().__init__(name=name, daemon=True)
        self._url = url
        self._is_over = threading.Event()
        self.answers: list[Answer] = []

    def run(self) -> None:
        while not self._is_over.wait(POLL_EVERY_S):
            asked_at_s = time.monotonic()
            status = self._ask()
            self.answers.append(Answer(asked_at_s, time.monotonic(), status))

    def _ask(self) -> int:
        try:
            with urllib.request.urlopen(self._url, timeout=PATIENCE_S) as response:  # noqa: S310  loopback only
                return int(response.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return SILENT

    def close(self) -> None:
        self._is_over.set()
        self.join()

    def flipped_after_s(self, wanted: int, since_s: float) -> float:
        """Seconds from `since_s` to the first such answer; infinite when there is none for PATIENCE_S."""
        while True:
            came = [answer.came_at_s for answer in self.answers if answer.status == wanted]
            if late := [at_s for at_s in came if at_s > since_s]:
                return late[0] - since_s
            if time.monotonic() - since_s > PATIENCE_S:
                return float("inf")
            time.sleep(0.02)

    def statuses(self, first: int, count: int) -> set[int]:
        """Waits for `count` answers from the `first` one on and returns their statuses."""
        wait_until(lambda: len(self.answers) >= first + count, timeout_s=PATIENCE_S, what=f"{self.name} answers")
        return {answer.status for answer in self.answers[first : first + count]}

    def slowest_s(self) -> float:
        return max(answer.came_at_s - answer.asked_at_s for answer in self.answers)


class Site:
    """A worker and a gateway at work on a broker and a database of their own, watched by probes."""

    def __init__(self, service: Service, kafka: Kafka, postgres: Postgres) -> None:
        self.dependencies = {"broker": kafka, "database": postgres}
        self._service = service
        worker = service.start_worker("worker")
        service.start_gateway()
        urls = {"worker": worker.url, "gateway": service.gateway_url}
        self.ready = {name: Probe(f"{name}-readyz", f"{url}/readyz") for name, url in urls.items()}
        self.live = {name: Probe(f"{name}-livez", f"{url}/livez") for name, url in urls.items()}
        for probe in self.probes:
            probe.start()

    @property
    def probes(self) -> list[Probe]:
        return [*self.ready.values(), *self.live.values()]

    def close(self) -> None:
        for probe in self.probes:
            probe.close()

    async def give_work(self) -> None:
        """Returns while rows are being written and calls are in flight."""
        await produce(self._service, texts_with_repeats(300, 0.3, seed=1))

    def flips(self, wanted: int, since_s: float) -> dict[str, float]:
        """How long each process's readiness took to become what it should; it stays so."""
        times_s = {name: probe.flipped_after_s(wanted, since_s) for name, probe in self.ready.items()}
        seen = {probe: len(probe.answers) for probe in self.ready.values()}
        for probe, first in seen.items():
            assert probe.statuses(first, STEADY_ANSWERS) == {wanted}, f"{probe.name} does not stay {wanted}"
        return times_s


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    skip_unless_kafka()
    with running(Kafka, tmp_path) as kafka, running(Postgres, tmp_path) as postgres:
        migrate_database(postgres.url)
        with Service(tmp_path, kafka.bootstrap_servers, postgres.url) as service:
            service.create_topics()
            with closing(Site(service, kafka, postgres)) as site:
                yield site


def freeze(server: Kafka | Postgres) -> None:
    assert server.pid
    stop_tree(server.pid)


def thaw(server: Kafka | Postgres) -> None:
    assert server.pid
    continue_tree(server.pid)


def kill(server: Kafka | Postgres) -> None:
    assert server.pid
    kill_tree(server.pid)


def start(server: Kafka | Postgres) -> None:
    """Returns when it answers: it is back from then on."""
    server.launch()
    server.await_ready()


Change = Callable[[Kafka | Postgres], None]


async def measured(site: Site, dependency: str, fault: Change, repair: Change) -> dict[str, dict[str, float]]:
    """The flips of both processes, by what was done, each from the moment when it was done."""
    await site.give_work()
    server, times_s = site.dependencies[dependency], {}
    for change, wanted in ((fault, NOT_READY), (repair, READY)):
        since_s = time.monotonic()
        change(server)
        if change is start:
            since_s = time.monotonic()
        times_s[change.__name__] = site.flips(wanted, since_s)
        line = ", ".join(f"{name} {took_s:.2f} s" for name, took_s in times_s[change.__name__].items())
        print(f"{dependency:8} {change.__name__:6} -> {wanted}: {line}")
    return times_s


@pytest.mark.kafka
@pytest.mark.timeout(300)
async def test_readiness_follows_each_dependency_and_liveness_none(site: Site) -> None:
    """Within 3 s of each change, every probe answered within 3 s; what is late is measured once more, for a machine may
    be busy for a moment."""
    for dependency in site.dependencies:
        for fault, repair in ((freeze, thaw), (kill, start)):
            times_s = await measured(site, dependency, fault, repair)
            if slowest_of(times_s) > WITHIN_S:
                print("measured again")
                times_s = await measured(site, dependency, fault, repair)
            assert slowest_of(times_s) <= WITHIN_S, times_s
    slowest_s = {probe.name: round(probe.slowest_s(), 2) for probe in site.probes}
    print(f"slowest answers: {slowest_s}")
    assert max(slowest_s.values()) <= WITHIN_S
    for probe in site.live.values():
        assert {answer.status for answer in probe.answers} == {READY}, probe.name


def test_a_worker_that_finds_nothing_lives_and_says_so(tmp_path: Path) -> None:
    """Broker and database may be started after it."""
    port = free_port()
    url, closed = f"http://127.0.0.1:{port}", f"127.0.0.1:{free_port()}"
    with Service(tmp_path, closed, f"postgresql://user:secret@{closed}/none") as service:
        worker = service.start("worker", "worker", WORKER_METRICS_PORT=str(port))
        wait_until(lambda: get(f"{url}/livez")[0] == READY, timeout_s=30, what="the worker lives")
        status, body = get(f"{url}/readyz")
        assert (status, json.loads(body)["checks"]) == (
            NOT_READY,
            {
                "broker": "not connected yet",
                "database": "not connected yet",
                "assignment": "joining the group or restoring the answers table",
                "partitions": "ok",
                "dead_letters": "ok",
            },
        )
        assert get(f"{url}/livez")[0] == READY
        assert worker.process.poll() is None


def slowest_of(times_s: dict[str, dict[str, float]]) -> float:
    return max(took_s for flips in times_s.values() for took_s in flips.values())
