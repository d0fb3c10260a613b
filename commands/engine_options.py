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
    actor_cpus: Annotated[
        int | None,
        typer.Option(
            "--actor-cpus",
            min=1,
            help="With Ray: CPUs and threads per actor. "
            "[default: all CPUs of the smallest node; 1 on nodes with a GPU]",
            show_default=False,
        ),
    ] = None

    @property
    def local(self) -> bool:
        """Whether this process does the work."""
        return self.engine == LOCAL

    @contextmanager
    def cluster(self, *, device: str) -> Iterator[RayCluster | None]:
        """Connect to the cluster for the duration of the block; None for the local engine.

        Raises:
            ConfigError: the engine's name is malformed, or `--actor-cpus` without Ray.
            ClusterError: the cluster cannot be used.
        """
        from imprompt.core.errors import ConfigError

        if self.local:
            if self.actor_cpus is not None:
                raise ConfigError(
                    "--actor-cpus belongs to --engine ray.",
                    hint="Set the threads of this process with OMP_NUM_THREADS.",
                )
            yield None
            return
        from imprompt.indexer.ray_session import parse_address, ray_cluster

        address = parse_address(self.engine)
        with ray_cluster(address, device=device, actor_cpus=self.actor_cpus) as cluster:
            yield cluster
