"""A Ray cluster of several nodes on this machine, whose nodes can be lost as a machine is: all at once."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

TOKEN = secrets.token_hex(32)  # one for all clusters of this process: Ray reads it once
WORKER = "ray::make_shard"  # the title of a worker process with a shard in work
TRAINER = "RayTrainWorker"  # in that of one with a training in work


def surroundings() -> dict[str, str]:
    """The environment of every process of a cluster: one token, a short folder, no niceness, nobody told."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_TMPDIR": tempfile.mkdtemp(prefix="vn-", dir="/tmp"),  # unix sockets: at most 107 bytes
        "RAY_worker_niceness": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "1",
        "OMP_NUM_THREADS": "1",
        # a lost node is noticed within seconds, not half a minute
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_failure_threshold": "3",
    }


class Nodes:
    """The nodes of one cluster: the first is the head, on which the driver runs."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def working(self, node: int) -> list[psutil.Process]:
        """Worker processes of a node that have a shard in work."""
        return [child for child in self._family(node) if _title(child).startswith(WORKER)]

    def training(self) -> list[int]:
        """Nodes on which a training has a worker."""
        return [n for n in range(len(self._all)) if any(TRAINER in _title(child) for child in self._family(n))]

    def wait_for_work(self, node: int, seconds: float = 90.0) -> bool:
        """Whether the node got a shard to make within ``seconds``."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.working(node):
                return True
            time.sleep(0.05)
        return False

    def lose(self, node: int) -> None:
        """Kill -9 the node: its raylet and all its workers, as when a machine goes dark."""
        family = [self._raylet(node), *self._family(node)]
        for process in family:
            with _gone():
                process.send_signal(signal.SIGKILL)

    def kill_worker(self, node: int) -> None:
        """Kill -9 one worker that has a shard in work."""
        for process in self.working(node)[:1]:
            with _gone():
                process.send_signal(signal.SIGKILL)

    def niceness(self, node: int) -> set[int]:
        """Of the workers with a shard in work."""
        return {process.nice() for process in self.working(node)}

    def _raylet(self, node: int) -> psutil.Process:
        from ray._private.ray_constants import PROCESS_TYPE_RAYLET

        return psutil.Process(self._all[node].all_processes[PROCESS_TYPE_RAYLET][0].process.pid)

    def _family(self, node: int) -> list[psutil.Process]:
        with _gone():
            return self._raylet(node).children(recursive=True)
        return []

    @property
    def _all(self) -> list[Any]:
        return [self._cluster.head_node, *sorted(self._cluster.worker_nodes, key=lambda node: node.unique_id)]


@contextmanager
def nodes(count: int, cpus: int, head: int | None = None) -> Iterator[Nodes]:
    """A cluster of ``count`` nodes with ``cpus`` logical processors each; all of it is gone afterwards.

    ``head``: those of the first, on which the driver runs, where it is to have others.
    """
    settings = surroundings()
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    folder = Path(settings["RAY_TMPDIR"])
    (folder / "ray").mkdir()
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": cpus if head is None else head, "include_dashboard": False}
    )
    try:
        for _ in range(count - 1):
            cluster.add_node(num_cpus=cpus)
        yield Nodes(cluster)
    finally:
        cluster.shutdown()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        shutil.rmtree(folder, ignore_errors=True)


def _gone() -> AbstractContextManager[None]:
    return suppress(psutil.Error)


def _title(process: psutil.Process) -> str:
    with _gone():
        return " ".join(process.cmdline())
    return ""
