"""Where long work is done: in this process, or by Ray. The options, and the connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from imprompt.indexer.ray_session import RayCluster

LOCAL = "local"

EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="local|ray|ray://HOST:PORT",
        help="Who does the work: this process, Ray started on this machine, or the Ray cluster with that head node, which this "
        "machine has joined.",
    ),
]
ActorCpus = Annotated[
    int | None,
    typer.Option(
        "--actor-cpus",
        min=1,
        help="With Ray: CPUs and threads of an actor. [otherwise those of the smallest node; 1 beside a GPU]",
        show_default=False,
    ),
]
Shards = Annotated[
    str | None,
    typer.Option(
        "--shards",
        metavar="URL",
        help="With Ray: a folder that all machines share, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX, through which vectors pass. "
        "[otherwise Ray's object store]",
        show_default=False,
    ),
]


@contextmanager
def ray_cluster_of(
    engine: str, *, device: str, actor_cpus: int | None
) -> Iterator[RayCluster | None]:
    """The cluster that `--engine` names, connected as long as the block runs; None for the local engine.

    Raises:
        ConfigError: the name is none, or an option belongs to Ray and the engine is local.
        ClusterError: the cluster cannot be used.
    """
    from imprompt.core.errors import ConfigError

    if engine == LOCAL:
        if actor_cpus is not None:
            raise ConfigError(
                "--actor-cpus belongs to --engine ray.",
                hint="Threads of this process: OMP_NUM_THREADS.",
            )
        yield None
        return
    from imprompt.indexer.ray_session import parse_address, ray_cluster

    with ray_cluster(parse_address(engine), device=device, actor_cpus=actor_cpus) as cluster:
        yield cluster
