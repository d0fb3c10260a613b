"""A connection to Ray: to an existing cluster, or to one on this machine while the command runs."""

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

from imprompt.core.device_names import NO_NVIDIA
from imprompt.core.errors import (
    ClusterError,
    ClusterUnreachable,
    ConfigError,
    WorkerDiffers,
    first_line,
)
from imprompt.core.pip_lines import install_extra

DEFAULT_PORT = 6379
OBJECT_STORE_BYTES = 512 << 20
"""Of a cluster that we start: two batches of rows or shards for each actor on 16 cores."""

_CONNECT_S = 5.0
_HANDSHAKE = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1])"
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's 15 would give way to everything else on this machine
    # An actor without a GPU leaves CUDA_VISIBLE_DEVICES alone, and Ray does not warn.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Makes Ray's processes listen at 127.0.0.1 only, on Linux too."""
_HOW = (
    "Use ray, or ray://HOST:PORT with the address of the head node, on a machine that has joined "
    "the cluster (`ray start`)."
)


@dataclass(frozen=True, slots=True)
class Pool:
    """Actors of one kind: how many at first and at most, and what each takes from its node."""

    first: int
    most: int
    cpus: int
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class RayCluster:
    """The pools of a connected cluster: one for CPU work, one with an actor for each device.

    A device is a GPU or, if there is none or `device` is "cpu", `actor_cpus` processors.
    """

    cleaning: Pool
    devices: Pool


def parse_address(engine: str) -> str:
    """Return HOST:PORT of `ray://HOST:PORT`; "" for `ray`, which starts a cluster.

    Raises:
        ConfigError: `engine` is neither.
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
        shown = "That" if "@" in engine else f"--engine {engine!r}"
        raise ConfigError(f"{shown} is not an engine.", hint=f"Use local. {_HOW}")
    return f"{host}:{port or DEFAULT_PORT}"


@contextmanager
def ray_cluster(
    address: str, *, device: str = "auto", actor_cpus: int | None = None, actors: int | None = None
) -> Iterator[RayCluster]:
    """Connect to Ray; leaving ends a cluster that was started, with its logs and spilled files.

    Args:
        address: HOST:PORT of the head node; "" starts a cluster on this machine, which listens at
            its loopback address only.
        device: "auto", "cpu" or "cuda".
        actor_cpus: processors and threads of an actor; None takes all of the smallest node, or one
            with a GPU.
        actors: how many at most; None takes one for each device.

    Raises:
        ConfigError: Ray is not installed, or the cluster has no such device.
        ClusterUnreachable: nothing, or not a cluster, answers at the address.
        WorkerDiffers: the cluster runs another version of Ray or Python.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("--engine ray needs Ray.", hint=f"Install it: {install_extra('ray')}")
    if address:
        check_answers(address)
    for name, value in (_ENVIRONMENT if address else _ENVIRONMENT | _LOOPBACK).items():
        os.environ.setdefault(name, value)
    with (
        warnings.catch_warnings(),
        tempfile.TemporaryDirectory(prefix="imprompt-ray-", ignore_cleanup_errors=True) as folder,
    ):
        warnings.simplefilter("ignore")  # of Ray about its settings
        import ray
        import ray._private.worker
        import ray.data

        print_to_stdstream = ray._private.worker.print_to_stdstream
        # It reports lost nodes on our standard output, however it is configured.
        ray._private.worker.print_to_stdstream = _print_nothing
        try:
            if address:
                _connect(ray, address)
            else:
                _start(ray, folder)
            _configure(ray)
            yield _pools(ray, device=device, actor_cpus=actor_cpus, actors=actors)
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
        raise ClusterError(
            f"Ray does not start on this machine: {first_line(error)}.",
            hint="Ray gives its processes 30 s to start: try again when the machine is less busy, "
            "or use --engine local.",
        ) from error


def _connect(ray: Any, address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (RuntimeError, OSError, ValueError) as error:
        if isinstance(error, RuntimeError) and "version" in str(error).lower():
            reason = " ".join(str(error).split())[:300]
            raise WorkerDiffers(
                f"The cluster at {address} runs another version: {reason}",
                hint="Install the same versions of Python and Ray on all machines.",
            ) from error
        raise ClusterUnreachable(
            f"The cluster at {address} rejects this machine: {first_line(error)}.", hint=_HOW
        ) from error


def check_answers(address: str, *, timeout_s: float = 30) -> None:
    """Check that Ray answers, in a short-lived process: Ray itself would keep trying for minutes.

    Args:
        address: HOST:PORT.
        timeout_s: how long that process may take, including its start.

    Raises:
        ClusterUnreachable: nothing, or not a head node, answers.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterUnreachable(f"Nothing answers at {address}: {error}.", hint=_HOW) from error
    command = [sys.executable, "-c", _HANDSHAKE, address]
    with suppress(subprocess.TimeoutExpired, subprocess.CalledProcessError):
        subprocess.run(command, capture_output=True, timeout=timeout_s, check=True)  # noqa: S603 our own interpreter
        return
    raise ClusterUnreachable(
        f"The service at {address} is not a head node of Ray, "
        f"or takes longer than {timeout_s:g} s to answer.",
        hint=_HOW,
    )


def _print_nothing(*_words: object, **_options: object) -> None:
    return None


def _configure(ray: Any) -> None:
    """Set options for all streams: results in order, a block for each item, and silence."""
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.target_min_block_size = context.target_max_block_size = 1  # a row is a batch or a shard
    context.max_errored_blocks = -1  # the next round repeats what a lost actor was working on
    context.enable_progress_bars = False


def room_for(ray: Any, pool: Pool) -> int:
    """Return how many actors of a pool fit onto the nodes alive now, at most `pool.most`."""
    fitting = 0
    for node in _nodes(ray):
        by_cpu = int(node.get("CPU", 0)) // pool.cpus
        fitting += min(by_cpu, int(node.get("GPU", 0)) // pool.gpus) if pool.gpus else by_cpu
    return min(fitting, pool.most)


def _nodes(ray: Any) -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _pools(ray: Any, *, device: str, actor_cpus: int | None, actors: int | None) -> RayCluster:
    nodes = _nodes(ray)
    cpus = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    if not cpus:
        raise ClusterError("No node of the cluster offers a CPU.")
    if device == "cuda" and not gpus:
        raise ConfigError(
            "No node of the cluster offers a GPU.",
            hint="Choose --device cpu, or announce the GPUs to Ray: ray start --num-gpus.",
        )
    actor_gpus = 0 if device in NO_NVIDIA or not gpus else 1
    each = actor_cpus or (1 if actor_gpus else min(cpus))
    most = room_for(ray, Pool(1, actors or sum(cpus), each, actor_gpus))
    if most < 1:
        extra = " and a free GPU" if actor_gpus else ""
        raise ConfigError(
            f"No node of the cluster has {each} CPUs{extra} for an actor.",
            hint=f"The largest node has {max(cpus)} CPUs; wait until other work is done.",
        )
    return RayCluster(cleaning=Pool(1, sum(cpus), 1), devices=Pool(most, most, each, actor_gpus))
