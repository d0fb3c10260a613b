"""Where long work runs: in this process or on Ray. The options, and the connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from imprompt.indexer.ray_session import RayCluster

LOCAL = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Which engine does the work."""

    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="local|ray|ray://HOST:PORT",
            help="Where the work runs: in this process, on Ray started on this machine, or on the "
            "Ray cluster with that head node, which this machine has joined.",
        ),
    ] = LOCAL

    @property
    def local(self) -> bool:
        """Whether this process does the work."""
        return self.engine == LOCAL

    @contextmanager
    def cluster(self, *, device: str) -> Iterator[RayCluster | None]:
        """Connect to the cluster for the duration of the block; None for the local engine.

        Raises:
            ConfigError: the engine's name is malformed.
            ClusterError: the cluster cannot be used.
        """
        if self.local:
            yield None
            return
        from imprompt.indexer.ray_session import parse_address, ray_cluster

        address = parse_address(self.engine)
        with ray_cluster(address, device=device) as cluster:
            yield cluster
