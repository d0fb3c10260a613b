"""A stream of items through actors of Ray Data: bounded, in order, restarted after losses.

One task on the machine of the command, where the index and the corpora lie, makes the items; each
travels as a block to an actor, and its result comes back in the same order. Ray Data holds back the
task while blocks wait for actors, and the actors while results wait to be read, so the object store
holds a few items for each actor however long the stream is.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from imprompt.core.errors import ClusterError, WorkerDiffers, first_line, last_line
from imprompt.indexer.provenance import code_sha256
from imprompt.indexer.ray_blocks import BlockActor, Failed, block_source, payloads
from imprompt.indexer.ray_session import Pool, room_for

if TYPE_CHECKING:
    import pyarrow

Item = TypeVar("Item")
Result = TypeVar("Result")

BARREN_ROUNDS = 3
"""Rounds in a row without a result after which a cluster is given up."""

_POLL_S, _GRACE_S = 1.0, 20.0
_NO_ROOM = "no node that is left has room for an actor"
_LOSS_LOGGER = "ray.data._internal.execution.streaming_executor_state"
"""Ray Data logs here why it skips a block; there is no other way to learn the reason."""


class LostError(Exception):
    """A round ended before its stream did: a node, an actor or an object is gone."""


class Rounds(Generic[Result]):
    """Streams started one after the other until nothing is missing.

    Args:
        begin: starts a stream of what is still missing; returns None if nothing is.
    """

    def __init__(self, begin: Callable[[], Iterator[Result] | None]) -> None:
        self._begin = begin

    def __iter__(self) -> Iterator[Result]:
        """Yield the results of all streams.

        Raises:
            ClusterError: several rounds in a row gave nothing.
        """
        barren, reason = 0, "nothing came back"
        while (results := self._begin()) is not None:
            has_result = False
            try:
                for result in results:
                    has_result = True
                    yield result
            except LostError as lost:
                reason = str(lost)
            barren = 0 if has_result else barren + 1
            if barren == BARREN_ROUNDS:
                raise ClusterError(
                    f"The cluster lost its work {barren} times in a row: {reason}",
                    hint="Finished work is kept; rerun the command to resume, "
                    "on this engine or another.",
                )


def stream(
    produce: Callable[[], Iterator[Item]],
    make: Callable[[], Callable[[Item], Result]],
    *,
    pool: Pool,
) -> Iterator[Result]:
    """Yield the results of all items in order, without those that lost actors were working on.

    Args:
        produce: yields the items, the same at each call; runs in a Ray process on this machine.
        make: called once in each actor; what it returns is called with items.
        pool: of the actors.

    Raises:
        LostError: after the last result, with the reason, if something was lost.
        WorkerDiffers: the workers run other code.
        Exception: as raised by `produce`, `make` or the work on an item.
    """
    import ray
    from ray.exceptions import RayError

    actors = room_for(ray, pool)
    if actors == 0:
        raise LostError(_NO_ROOM)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray Data about its settings
        results = _results(ray, produce, make, pool=pool, actors=actors)
        stop = _stopper(results)
        batches = iter(
            results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        )
    try:
        with _noted_losses() as losses:
            for batch in _while_room(batches, lambda: room_for(ray, pool), stop):
                for payload in payloads(batch):
                    if isinstance(payload, Failed):
                        raise payload.error
                    yield payload
        if losses:
            raise LostError(losses[-1])
    except RayError as error:
        if "ModuleNotFoundError" in str(error) or "No module named" in str(error):
            raise WorkerDiffers(
                "A worker of the cluster cannot load imprompt: "
                f"{last_line(error, default=type(error).__name__)}",
                hint="Install the same version of imprompt, with its extras, on every machine "
                "of the cluster.",
            ) from error
        raise LostError(_reason(error)) from error
    finally:
        _kill_actors(ray)


def _results(
    ray: Any,
    produce: Callable[[], Iterator[Any]],
    make: Callable[[], Callable[[Any], Any]],
    *,
    pool: Pool,
    actors: int,
) -> Any:
    """Return the data set of the results; nothing runs before it is read."""
    items = ray.data.read_datasource(
        block_source(produce),
        num_cpus=0,
        label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
        override_num_blocks=1,
    )
    return items.map_batches(
        BlockActor,
        fn_constructor_args=(make, code_sha256(), pool.cpus, Path.cwd()),
        batch_size=None,
        batch_format="pyarrow",
        # A pool below its least size waits for actors, even if their node is gone.
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=actors, initial_size=min(pool.first, actors)
        ),
        num_cpus=pool.cpus,
        num_gpus=pool.gpus or None,
        # The pool starts new actors instead; a task that waits for a restart might wait forever.
        max_restarts=0,
        max_task_retries=0,
    )


def _stopper(results: Any) -> Callable[[], None]:
    """Return a function that ends the execution of a data set, before its first block too."""
    create, executors = results._create_executor, []

    def create_and_note() -> Any:
        executors.append(create())
        return executors[-1]

    def stop() -> None:
        for executor in executors:
            executor.shutdown(force=True)

    results._create_executor = create_and_note
    return stop


def _kill_actors(ray: Any) -> None:
    """Kill the actors of this command, which runs one stream at a time.

    Ray Data only drops its handles. Where a block was lost, something still holds one: the actors
    kept their processors, and those of the next round waited forever.
    """
    worker = ray._private.worker.global_worker
    for name, actor in ray._private.state.actors().items():
        if (
            actor["JobID"] == worker.current_job_id.hex()
            and actor["ActorClassName"].startswith("MapWorker")
            and actor["State"] != "DEAD"
        ):
            with contextlib.suppress(Exception):  # it ended by itself
                worker.core_worker.kill_actor(ray.ActorID(bytes.fromhex(name)), True)


def _while_room(
    batches: Generator[pyarrow.Table, None, None], room: Callable[[], int], stop: Callable[[], None]
) -> Iterator[pyarrow.Table]:
    """Yield the batches while nodes have room for actors; without, Ray Data would wait forever.

    Another thread takes the batches and closes them at the end, which ends their actors. `stop`
    ends its waiting: it must not outlive the connection to Ray, which would end this process.

    Raises:
        LostError: neither a batch nor room for `_GRACE_S`.
    """
    arrived: queue.Queue[Any] = queue.Queue(maxsize=1)
    ended = threading.Event()
    taker = threading.Thread(
        target=_take, args=(batches, arrived, ended), name="ray-results", daemon=True
    )
    taker.start()
    without_room_s = 0.0
    try:
        while without_room_s < _GRACE_S:
            try:
                batch = arrived.get(timeout=_POLL_S)
            except queue.Empty:
                without_room_s = 0.0 if room() else without_room_s + _POLL_S
                continue
            if batch is None:
                return
            if isinstance(batch, BaseException):
                raise batch
            yield batch
        raise LostError(_NO_ROOM)
    finally:
        ended.set()
        stop()
        taker.join(timeout=_GRACE_S)


def _take(
    batches: Generator[pyarrow.Table, None, None], arrived: queue.Queue[Any], ended: threading.Event
) -> None:
    """Put batches into the queue until `ended` is set, then None, or the error that ends them."""

    def put(value: Any) -> None:
        while not ended.is_set():
            with contextlib.suppress(queue.Full):
                arrived.put(value, timeout=_POLL_S)
                break

    try:
        for batch in batches:
            put(batch)
            if ended.is_set():
                return
        put(None)
    except BaseException as error:  # noqa: BLE001 raised where the batches are read
        put(error)
    finally:
        batches.close()


@contextlib.contextmanager
def _noted_losses() -> Iterator[list[str]]:
    """Collect the reasons for which Ray Data skips blocks."""
    losses: list[str] = []

    class Noting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1] is not None:
                losses.append(_reason(record.exc_info[1]))

    logger, handler = logging.getLogger(_LOSS_LOGGER), Noting()
    logger.propagate = False
    logger.setLevel(logging.ERROR)
    logger.addHandler(handler)
    try:
        yield losses
    finally:
        logger.removeHandler(handler)


def _reason(error: BaseException) -> str:
    """Return a line on a loss; the cause of a task's error is what its process reported."""
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {first_line(cause)}"
