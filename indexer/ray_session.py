"""A connection to Ray: to a cluster that is there, or to one of our own that lives on this machine as long as the command does."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from imprompt.core.device_names import PROCESSOR
from imprompt.core.errors import ClusterError, ClusterUnreachable, ConfigError, WorkerDiffers

DEFAULT_PORT = 6379
OBJECT_STORE_BYTES = 512 << 20
"""Of a cluster that we start: room for two batches of rows or shards an actor on a machine of 16 cores."""

_CONNECT_S = 5.0
_HANDSHAKE = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1])"
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's 15 would let anything else on this machine go first
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # an actor without a GPU leaves CUDA_VISIBLE_DEVICES as it is, and Ray does not warn
}
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Where Ray does not expect other machines, its processes listen at 127.0.0.1; on Linux this is how it is told so."""
_HOW = "Give ray, or ray://HOST:PORT with the address of the head node, from a machine that has joined the cluster (`ray start`)."


@dataclass(frozen=True, slots=True)
class Pool:
    """Actors of one kind: how many at first and at most, and what each takes of its node."""

    first: int
    most: int
    cpus: int
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class RayCluster:
    """What a connected cluster offers: a pool for work on processors alone, and one with an actor for each device.

    A device is a GPU, or, where there is none or `device` is "cpu", `actor_cpus` processors.
    """

    cleaning: Pool
    devices: Pool


def parse_address(engine: str) -> str:
    """HOST:PORT of `ray://HOST:PORT`; "" for `ray`, which starts a cluster.

    Raises:
        ConfigError: it is neither.
    """
    if engine == "ray":
        return ""
    host, _, port = engine.removeprefix("ray://").partition(":")
    if (
        not engine.startswith("ray://")
        or not host
        or "@" in host
        or "/" in host
        or not (port or str(DEFAULT_PORT)).isdecimal()
    ):
        raise ConfigError("That is no engine.", hint=f"Give local. {_HOW}")
    return f"{host}:{port or DEFAULT_PORT}"


@contextmanager
def ray_cluster(
    address: str, *, device: str = "auto", actor_cpus: int | None = None, actors: int | None = None
) -> Iterator[RayCluster]:
    """A connection to Ray, closed at the end; with it goes a cluster of our own, its logs and what it spilled.

    Args:
        address: HOST:PORT of the head node; "" starts a cluster on this machine, which hears only
            its loopback address.
        device: "auto", "cpu" or "cuda".
        actor_cpus: processors of an actor, and its threads; None takes as many as the smallest node
            has, one with a GPU.
        actors: how many at most; None takes as many as the devices are.

    Raises:
        ConfigError: Ray is not installed, or the cluster has no such device.
        ClusterUnreachable: nothing answers at the address, or no cluster.
        WorkerDiffers: it is of another version of Ray or Python.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("--engine ray needs Ray.", hint="Install it: pip install 'imprompt[ray]'")
    if address:
        check_answers(address)
    wanted = _ENVIRONMENT if address else _ENVIRONMENT | _LOOPBACK
    os.environ.update({name: value for name, value in wanted.items() if name not in os.environ})
    with (
        warnings.catch_warnings(),
        tempfile.TemporaryDirectory(prefix="imprompt-ray-", ignore_cleanup_errors=True) as folder,
    ):
        warnings.simplefilter("ignore")  # of Ray, of its own deprecated settings
        import ray
        import ray._private.worker
        import ray.data

        print_to_stdstream = ray._private.worker.print_to_stdstream
        ray._private.worker.print_to_stdstream = (
            _print_nothing  # of lost nodes it tells among our answers, whatever is asked of it
        )
        try:
            if address:
                _connect(ray, address)
            else:
                _start(ray, folder)
            _settle(ray)
            yield _offered(ray, device=device, actor_cpus=actor_cpus, actors=actors)
        finally:
            ray.shutdown()
            ray._private.worker.print_to_stdstream = print_to_stdstream


def _start(ray: Any, folder: str) -> None:
    try:
        ray.init(
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
        )
    except Exception as error:
        hint = "Ray grants its processes 30 s to start: try again when the machine is less busy, or use --engine local."
        raise ClusterError(
            f"Ray does not start on this machine: {_first_line(error)}", hint=hint
        ) from error


def _connect(ray: Any, address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except RuntimeError as error:
        if "version" in str(error).lower():
            raise WorkerDiffers(
                f"The cluster at {address} is of another version: {' '.join(str(error).split())[:300]}",
                hint="Install the same versions of Python and Ray on all machines.",
            ) from error
        raise ClusterUnreachable(
            f"The cluster at {address} does not take this machine: {_first_line(error)}", hint=_HOW
        ) from error
    except (ConnectionError, OSError, ValueError) as error:
        raise ClusterUnreachable(
            f"The cluster at {address} does not take this machine: {_first_line(error)}", hint=_HOW
        ) from error


def check_answers(address: str, *, timeout_s: float = 30) -> None:
    """Ask at an address for Ray. Ray itself would ask for minutes, so a short-lived process asks before.

    Args:
        address: HOST:PORT.
        timeout_s: how long that process may take, its start included.

    Raises:
        ClusterUnreachable: nothing answers, or nothing that is a head node.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterUnreachable(f"Nothing answers at {address}: {error}.", hint=_HOW) from error
    command = [sys.executable, "-c", _HANDSHAKE, address]
    with suppress(subprocess.TimeoutExpired):
        if (
            subprocess.run(command, capture_output=True, timeout=timeout_s, check=False).returncode  # noqa: S603 our own interpreter
            == 0
        ):
            return
    raise ClusterUnreachable(
        f"What answers at {address} is no head node of Ray, or takes longer than {timeout_s:g} s.",
        hint=_HOW,
    )


def _print_nothing(*_words: object, **_options: object) -> None:
    return None


def _settle(ray: Any) -> None:
    """Options for all that is streamed: results in the order of their items, a block for each, and silence."""
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.target_min_block_size = context.target_max_block_size = 1  # a row is a batch or a shard
    context.max_errored_blocks = (
        -1
    )  # what a lost actor was at is asked for again, by whoever misses it
    context.enable_progress_bars = False


def room_for(ray: Any, pool: Pool) -> int:
    """How many actors of a pool fit onto the nodes that are there now, its most if more do."""
    fitting = 0
    for node in _nodes(ray):
        by_cpu = int(node.get("CPU", 0)) // pool.cpus
        fitting += min(by_cpu, int(node.get("GPU", 0)) // pool.gpus) if pool.gpus else by_cpu
    return min(fitting, pool.most)


def _nodes(ray: Any) -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _offered(ray: Any, *, device: str, actor_cpus: int | None, actors: int | None) -> RayCluster:
    nodes = _nodes(ray)
    cpus = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    if not cpus:
        raise ClusterError("No node of the cluster offers a CPU.")
    if device == "cuda" and not gpus:
        hint = "Choose --device cpu, or let Ray know of them: ray start --num-gpus."
        raise ConfigError("No node of the cluster offers a GPU.", hint=hint)
    with_gpus = device not in PROCESSOR and gpus > 0
    each = actor_cpus or (1 if with_gpus else min(cpus))
    most = room_for(ray, Pool(1, actors or sum(cpus), each, 1 if with_gpus else 0))
    if most < 1:
        hint = f"See --actor-cpus; the most CPUs of a node are {max(cpus)}."
        raise ConfigError(
            f"No node of the cluster has {each} CPUs for an actor{' beside a GPU' * with_gpus}.",
            hint=hint,
        )
    return RayCluster(
        cleaning=Pool(1, sum(cpus), 1), devices=Pool(most, most, each, 1 if with_gpus else 0)
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
