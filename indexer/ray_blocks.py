"""What travels through Ray Data: items and results, pickled, each a block of one row.

A source task turns items into blocks (`block_source`), an actor turns each into the block of its
result (`BlockActor`), and `payloads` takes them out again. An exception travels as a value
(`Failed`), so that it is raised where the results are read and not logged by Ray.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imprompt.core.errors import ImpromptError, WorkerDiffers
from imprompt.encoders.torch_devices import use_threads
from imprompt.indexer.provenance import code_sha256

if TYPE_CHECKING:
    import pyarrow

_PAYLOAD = "payload"


@dataclass(frozen=True, slots=True)
class Failed:
    """The error that takes the place of an item or a result."""

    error: Exception


class BlockActor:
    """The function that Ray Data calls with blocks in an actor.

    It prepares its work with the first block, not when it is created, so that a failure comes back
    as a value.

    Args:
        make: called once; what it returns is called with each item.
        code: the expected `imprompt.indexer.provenance.code_sha256`.
        n_threads: that the work may use.
        folder: the current folder of the command; paths may be relative to it.
    """

    def __init__(
        self, make: Callable[[], Callable[[Any], Any]], code: str, n_threads: int, folder: Path
    ) -> None:
        self._make, self._code, self._n_threads, self._folder = make, code, n_threads, folder
        self._work: Callable[[Any], Any] | None = None

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        return _table([self._result(item) for item in payloads(batch)])

    def _result(self, item: Any) -> Any:
        if isinstance(item, Failed):
            return item
        try:
            if self._work is None:
                self._work = self._prepare()
            return self._work(item)
        except Exception as error:  # noqa: BLE001 raised again where the results are read
            return _failed(error)

    def _prepare(self) -> Callable[[Any], Any]:
        if code_sha256() != self._code:
            raise WorkerDiffers(
                f"{socket.gethostname()} runs other code of imprompt than this machine.",
                hint="Install the same version on every machine of the cluster.",
            )
        if self._folder.is_dir():
            os.chdir(self._folder)
        use_threads(self._n_threads)
        return self._make()


def block_source(produce: Callable[[], Iterator[Any]]) -> Any:
    """Return a Ray data source of one task, which yields each item as a block."""
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    folder = Path.cwd()  # paths may be relative to it

    def read() -> Iterator[pyarrow.Table]:
        with contextlib.chdir(folder):
            items = produce()
            while True:
                try:
                    item = next(items)
                except StopIteration:
                    return
                except Exception as error:  # noqa: BLE001 raised again where the results are read
                    yield _table([_failed(error)])
                    return
                yield _table([item])

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
            unknown = BlockMetadata(
                num_rows=None, size_bytes=None, input_files=None, exec_stats=None
            )
            return [ReadTask(read, unknown)]

    return Items()  # type: ignore[no-untyped-call]


def payloads(batch: pyarrow.Table) -> Iterator[Any]:
    """Yield the values of a batch of blocks."""
    for cell in batch[_PAYLOAD]:
        yield pickle.loads(cell.as_buffer())  # noqa: S301 written by our actors, as all that Ray sends


def _table(values: list[Any]) -> pyarrow.Table:
    import pyarrow

    return pyarrow.table({_PAYLOAD: pyarrow.array(map(_pickled, values), pyarrow.large_binary())})


def _pickled(value: Any) -> bytes:
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


def _failed(error: Exception) -> Failed:
    """Wrap an error; one that is a bug of ours keeps its traceback as a note."""
    if not isinstance(error, ImpromptError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(_pickled(error))  # noqa: S301 our own bytes
    except Exception:  # noqa: BLE001 an error that cannot travel
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return Failed(error.with_traceback(None))
