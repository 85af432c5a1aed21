"""Three Apache Kafka nodes on loopback that can be killed, frozen and started again, one by one or all at once."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from streams.dev.local.brokers import Kafka, new_cluster_id, replication
from streams.dev.local.ports import LOOPBACK, free_port
from streams.dev.local.process import ProcessLog as ProcessLog
from tests.chaos.cluster_view import ClusterView, ask
from tests.support.process_tree import continue_tree, kill_tree, stop_tree

NODES = (1, 2, 3)
_MAX_HEAP_MB = 384
_WITHIN_S = 60.0
_POLL_S = 0.05


class Cluster:
    """Nodes 1 to 3, each broker and controller; replication factor 3, of which 2 must be in sync.

    All calls block. Use as a context manager, which starts the cluster and leaves nothing running.
    """

    def __init__(self, folder: Path, log: ProcessLog) -> None:
        ports = {node: free_port() for node in NODES}
        cluster_id = new_cluster_id()
        self._nodes = {node: _node(folder / f"kafka-{node}", log, node, ports, cluster_id) for node in NODES}

    def __enter__(self) -> "Cluster":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def bootstrap_servers(self) -> str:
        """All three addresses."""
        return ",".join(node.bootstrap_servers for node in self._nodes.values())

    def start(self) -> None:
        """Returns when each node knows three brokers. Raises Fatal, with nothing running, when one does not start."""
        try:
            with ThreadPoolExecutor(len(NODES)) as threads:
                list(threads.map(Kafka.start, self._nodes.values()))
            for number in NODES:
                self._until(lambda view: view.brokers >= set(NODES), number, "three brokers")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kills all nodes at once: a graceful stop takes long, since the last ones find no controller."""
        for number in self._alive():
            self.kill(number)
        for node in self._nodes.values():
            node.stop()

    def kill(self, number: int) -> None:
        """Sends SIGKILL; returns when the node is dead. A dead one stays dead."""
        node = self._nodes[number]
        if node.is_running:
            assert node.pid is not None
            kill_tree(node.pid)
            # A process of many threads is there until the last one ended, though its first one is a zombie.
            _wait(lambda: not node.is_running, f"node {number} is dead")

    def terminate(self, number: int) -> None:
        """SIGTERM: the node hands over what it leads, then ends. It is killed if that takes longer than 20 s."""
        self._nodes[number].stop()

    def restart(self, *numbers: int) -> None:
        """Starts dead nodes on their data; returns when they are in sync again with all that they hold.

        Two or three that are dead must be started together: one alone finds no majority and never becomes ready.
        """
        for number in numbers:
            assert not self.is_alive(number), f"node {number} lives"
            self._nodes[number].launch()
        for number in numbers:
            self._nodes[number].await_ready()
        for number in numbers:
            # Asks the node itself: the others may still answer with its state before it died.
            self._until(partial(ClusterView.is_caught_up, broker=number), number, "in sync again")

    def freeze(self) -> None:
        """SIGSTOP for all nodes that live; returns when they are stopped."""
        for pid in self._pids():
            stop_tree(pid)

    def thaw(self) -> None:
        """SIGCONT for all nodes that live."""
        for pid in self._pids():
            continue_tree(pid)

    def is_alive(self, number: int) -> bool:
        """Whether its process exists, frozen or not."""
        return self._nodes[number].is_running

    def view(self) -> ClusterView | None:
        """Returns what the first node that answers knows about the cluster; None when none answers."""
        return next((view for number in self._alive() if (view := ask(self._nodes[number].port))), None)

    def _alive(self) -> list[int]:
        return [number for number in NODES if self.is_alive(number)]

    def _pids(self) -> Iterator[int]:
        return (pid for number in self._alive() if (pid := self._nodes[number].pid) is not None)

    def _until(self, is_so: Callable[[ClusterView], bool], number: int, what: str) -> None:
        port = self._nodes[number].port
        _wait(lambda: (view := ask(port)) is not None and is_so(view), f"node {number}: {what}")


def _node(folder: Path, log: ProcessLog, number: int, controller_ports: dict[int, int], cluster_id: str) -> Kafka:
    node = Kafka(folder, log)
    node.name, node.cluster_id, node.max_heap_mb = f"kafka-{number}", cluster_id, _MAX_HEAP_MB
    node.properties |= {
        "node.id": str(number),
        "controller.quorum.voters": ",".join(f"{other}@{LOOPBACK}:{port}" for other, port in controller_ports.items()),
        "listeners": f"PLAINTEXT://{node.bootstrap_servers},CONTROLLER://{LOOPBACK}:{controller_ports[number]}",
        **replication(len(NODES)),
    }
    return node


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {_WITHIN_S:g} s: {what}"
        time.sleep(_POLL_S)
