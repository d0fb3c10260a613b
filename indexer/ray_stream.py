"""A stream of items through actors of Ray Data: bounded, in order, and begun again for what a lost node took with it.

The items are made by one task on the machine of the command, where the index and the corpora lie;
each travels as one block to an actor, and its result comes back in the same order. Ray Data holds
back the task while blocks wait for actors, and the actors while results wait for us, so that the
object store holds a few items for each actor however long the stream is.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import queue
import socket
import threading
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from imprompt.core.errors import ClusterError, ImpromptError, WorkerDiffers
from imprompt.encoders.torch_devices import use_threads
from imprompt.indexer.provenance import code_sha256
from imprompt.indexer.ray_session import Pool, room_for

if TYPE_CHECKING:
    import pyarrow

Item = TypeVar("Item")
Result = TypeVar("Result")

BARREN_ROUNDS = 3
"""Rounds without one result, after which a cluster is given up."""

_PAYLOAD = "payload"
_LOOK_S, _GRACE_S = 1.0, 20.0
_TELLS_LOSSES = "ray.data._internal.execution.streaming_executor_state"
"""The logger that Ray Data tells of each block that it goes on without; there is no other way to learn why."""


@dataclass(frozen=True, slots=True)
class Failed:
    """In place of an item or a result: why there is none."""

    error: Exception


class LostError(Exception):
    """A round ended before its stream did: a node, an actor or an object is gone."""


class Rounds(Generic[Result]):
    """Streams begun one after the other until all is there.

    Args:
        begin: the stream of what is still wanted; None where nothing is.
    """

    def __init__(self, begin: Callable[[], Iterator[Result] | None]) -> None:
        self._begin = begin

    def __iter__(self) -> Iterator[Result]:
        """What the streams give.

        Raises:
            ClusterError: round after round gave nothing.
        """
        barren, reason = 0, "nothing came back"
        while (stream := self._begin()) is not None:
            came = False
            try:
                for result in stream:
                    came = True
                    yield result
            except LostError as lost:
                reason = str(lost)
            barren = 0 if came else barren + 1
            if barren == BARREN_ROUNDS:
                raise ClusterError(
                    f"The cluster lost its work {barren} times in a row: {reason}",
                    hint="What was finished is kept; the same command goes on from there, on this engine or another.",
                )


def stream(
    produce: Callable[[], Iterator[Item]],
    make: Callable[[], Callable[[Item], Result]],
    *,
    pool: Pool,
) -> Iterator[Result]:
    """The results of all items in their order; those that a lost actor was at are left out.

    Args:
        produce: gives the items, and the same again where it is called again; runs on this machine,
            in a process of Ray.
        make: what an actor calls once and then has for its items.
        pool: of the actors.

    Raises:
        LostError: behind the last result: something was lost, and why.
        WorkerDiffers: the workers have not this code.
        Exception: what `produce`, `make` or an item's work raised.
    """
    import ray
    from ray.exceptions import RayError

    actors = room_for(ray, pool)
    if actors == 0:
        raise LostError("no node that is left has room for an actor")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray Data, of its own deprecated settings
        here = ray.get_runtime_context().get_node_id()
        read = ray.data.read_datasource(
            _datasource(produce),
            num_cpus=0,
            label_selector={"ray.io/node-id": here},
            override_num_blocks=1,
        )
        results = read.map_batches(
            _Actor,
            fn_constructor_args=(make, code_sha256(), pool.cpus, Path.cwd()),
            batch_size=None,
            batch_format="pyarrow",
            # A pool that lacks actors of its least size waits for them, also where their node is
            # gone.
            compute=ray.data.ActorPoolStrategy(
                min_size=1, max_size=actors, initial_size=min(pool.first, actors)
            ),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus or None,
            max_restarts=0,  # the pool starts others in their place; a task that waits for a restart might wait for good
            max_task_retries=0,
        )
        stop = _stopper(results)
        batches = iter(
            results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        )
    try:
        with _noted_losses() as losses:
            for batch in _while_room(batches, lambda: room_for(ray, pool), stop):
                for payload in _payloads(batch):
                    if isinstance(payload, Failed):
                        raise payload.error
                    yield payload
        if losses:
            raise LostError(losses[-1])
    except RayError as error:
        if "ModuleNotFoundError" in str(error) or "No module named" in str(error):
            raise WorkerDiffers(
                f"A worker of the cluster cannot load imprompt: {_last_line(error)}",
                hint="Install the same version of imprompt, with its extras, on every machine of the cluster.",
            ) from error
        raise LostError(_reason(error)) from error
    finally:
        _end_actors(ray)


def _stopper(results: Any) -> Callable[[], None]:
    """What ends the execution of a data set, whether it has begun to give blocks or not."""
    create, executors = results._create_executor, []

    def noted() -> Any:
        executors.append(create())
        return executors[-1]

    def stop() -> None:
        for executor in executors:
            executor.shutdown(force=True)

    results._create_executor = noted
    return stop


def _end_actors(ray: Any) -> None:
    """Kill the actors of this command, of which there is one stream at a time.

    Ray Data only drops its handles of them. Where a block was lost, something still holds a handle,
    the actors kept their processors, and those of the next round waited for good.
    """
    worker = ray._private.worker.global_worker
    for name, actor in ray._private.state.actors().items():
        ours = actor["JobID"] == worker.current_job_id.hex() and actor["ActorClassName"].startswith(
            "MapWorker"
        )
        if ours and actor["State"] != "DEAD":
            with contextlib.suppress(Exception):  # it ended by itself
                worker.core_worker.kill_actor(ray.ActorID(bytes.fromhex(name)), True)


def _while_room(
    batches: Generator[pyarrow.Table, None, None], room: Callable[[], int], stop: Callable[[], None]
) -> Iterator[pyarrow.Table]:
    """The same batches, as long as nodes have room for actors: where they have none, Ray Data waits for others, for good.

    Another thread takes the batches, and closes them at the end, with which their actors end.
    `stop` ends what it waits for: it may not outlive the connection to Ray, which would end this
    process.

    Raises:
        LostError: no batch and no room for `_GRACE_S`.
    """
    arrived: queue.Queue[Any] = queue.Queue(maxsize=1)
    ended = threading.Event()

    def give(what: Any) -> None:
        while not ended.is_set():
            with contextlib.suppress(queue.Full):
                arrived.put(what, timeout=_LOOK_S)
                break

    def take() -> None:
        try:
            for batch in batches:
                give(batch)
                if ended.is_set():
                    return
            give(None)
        except BaseException as error:  # noqa: BLE001 it is raised where the batches are read
            give(error)
        finally:
            batches.close()

    taker = threading.Thread(target=take, name="ray-results", daemon=True)
    taker.start()
    without_room_s = 0.0
    try:
        while without_room_s < _GRACE_S:
            try:
                what = arrived.get(timeout=_LOOK_S)
            except queue.Empty:
                without_room_s = 0.0 if room() else without_room_s + _LOOK_S
                continue
            if what is None:
                return
            if isinstance(what, BaseException):
                raise what
            yield what
        raise LostError("no node that is left has room for an actor")
    finally:
        ended.set()
        stop()
        taker.join(timeout=_GRACE_S)


class _Actor:
    """What Ray Data calls with a block: makes the work at the first, so that a failure comes back as a value."""

    def __init__(
        self, make: Callable[[], Callable[[Any], Any]], code: str, n_threads: int, folder: Path
    ) -> None:
        self._make, self._code, self._n_threads, self._folder = make, code, n_threads, folder
        self._work: Callable[[Any], Any] | None = None

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        import pyarrow

        results = [_packed(self._done(item)) for item in _payloads(batch)]
        return pyarrow.table({_PAYLOAD: pyarrow.array(results, pyarrow.large_binary())})

    def _done(self, item: Any) -> Any:
        if isinstance(item, Failed):
            return item
        try:
            if self._work is None:
                if code_sha256() != self._code:
                    raise WorkerDiffers(
                        f"{socket.gethostname()} runs other code of imprompt than this machine.",
                        hint="Install the same version on every machine of the cluster.",
                    )
                if self._folder.is_dir():
                    os.chdir(self._folder)  # names may be relative to it
                use_threads(self._n_threads)
                self._work = self._make()
            return self._work(item)
        except Exception as error:  # noqa: BLE001 whatever it is, it is raised again where the results are read
            return _failed(error)


def _datasource(produce: Callable[[], Iterator[Any]]) -> Any:
    """One task that yields each item as a block of its own."""
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    folder = Path.cwd()  # names may be relative to it

    def read() -> Iterator[pyarrow.Table]:
        with contextlib.chdir(folder):
            items = produce()
            while True:
                try:
                    payload = next(items)
                except StopIteration:
                    return
                except Exception as error:  # noqa: BLE001 as above
                    yield _block(_failed(error))
                    return
                yield _block(payload)

    class Items(Datasource):
        def get_name(self) -> str:
            return "imprompt"

        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(
            self,
            parallelism: int,  # noqa: ARG002
            per_task_row_limit: int | None = None,  # noqa: ARG002
            data_context: Any = None,  # noqa: ARG002
        ) -> list[Any]:
            return [
                ReadTask(
                    read,
                    BlockMetadata(
                        num_rows=None, size_bytes=None, input_files=None, exec_stats=None
                    ),
                )
            ]

    return Items()  # type: ignore[no-untyped-call]


def _block(payload: Any) -> pyarrow.Table:
    import pyarrow

    return pyarrow.table({_PAYLOAD: pyarrow.array([_packed(payload)], pyarrow.large_binary())})


def _packed(value: Any) -> bytes:
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


def _payloads(batch: pyarrow.Table) -> Iterator[Any]:
    for cell in batch[_PAYLOAD]:
        yield pickle.loads(cell.as_buffer())  # noqa: S301 written by our own actors, as all that Ray sends


def _failed(error: Exception) -> Failed:
    """The error, with the traceback of where it was raised where it is a fault of ours."""
    if not isinstance(error, ImpromptError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(_packed(error))  # noqa: S301 our own bytes
    except Exception:  # noqa: BLE001 an error that cannot travel
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return Failed(error.with_traceback(None))


@contextlib.contextmanager
def _noted_losses() -> Iterator[list[str]]:
    """Why the blocks were lost that Ray Data goes on without, as it comes."""
    losses: list[str] = []

    class Noting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1] is not None:
                losses.append(_reason(record.exc_info[1]))

    logger, handler = logging.getLogger(_TELLS_LOSSES), Noting()
    logger.propagate = False
    logger.setLevel(logging.ERROR)
    logger.addHandler(handler)
    try:
        yield losses
    finally:
        logger.removeHandler(handler)


def _reason(error: BaseException) -> str:
    """What Ray says of a loss, in a line; behind an error of a task stands what its own process said."""
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {next(iter(str(cause).strip().splitlines()), '')}"


def _last_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()[::-1]), type(error).__name__).strip()
