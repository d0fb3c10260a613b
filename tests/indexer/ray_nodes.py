"""Clusters of Ray for tests: several nodes on this machine, small and quiet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
STORE_BYTES = 100 << 20
ENVIRONMENT = {
    "PYTHONPATH": str(REPOSITORY),
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}


class Nodes:
    """A cluster: a head that offers no CPU, to which the tests connect, and nodes of one CPU."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self.address = str(cluster.address)
        self._nodes: list[Any] = []

    def grow(self) -> None:
        self._nodes.append(_add_node(self._cluster, num_cpus=1))

    def settle(self) -> None:
        """Wait until the head knows of all losses: what it sends to a lost node is lost."""
        self._cluster.wait_for_nodes(timeout=120)

    def lose(self) -> None:
        """Kill the newest node, with all of its processes."""
        self._cluster.remove_node(self._nodes.pop(), allow_graceful=False)


@contextmanager
def nodes(count: int) -> Iterator[Nodes]:
    """Start a head and `count` nodes; workers find the repository and compute with one thread."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        cluster = Cluster()
        _add_node(cluster, num_cpus=0, include_dashboard=False)
        try:
            started = Nodes(cluster)
            for _ in range(count):
                started.grow()
            yield started
        finally:
            cluster.shutdown()  # type: ignore[no-untyped-call]
            os.environ.pop("RAY_ADDRESS", None)


def _add_node(cluster: Any, **options: Any) -> Any:
    """Start a process of Ray; try three times, as a busy machine may exceed Ray's 30 s."""
    for attempt in range(3):
        try:
            return cluster.add_node(object_store_memory=STORE_BYTES, **options)
        except Exception as error:  # Ray raises a bare Exception
            if attempt == 2 or "timed out" not in str(error).lower():
                raise
    raise AssertionError("unreachable")
