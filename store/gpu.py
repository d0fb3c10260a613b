"""One GPU for FAISS, and the one thread that may use it. Not run on a GPU yet.

FAISS's indexes on a GPU are not safe to use from two threads, not even for reading, so all calls go
through `Gpu.attempt`, in the order of asking. What the GPU cannot do, the processor does: with
`auto` one line says so, with `cuda` it is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from imprompt.core.device_names import (
    NO_NVIDIA,
    WITHOUT_GPU,
    NvidiaDriver,
    check_device,
    nvidia_driver,
)
from imprompt.core.errors import ConfigError, last_line
from imprompt.core.hub.fetch import Announce, silent
from imprompt.store.faiss_import import import_faiss

Value = TypeVar("Value")

GPU_POOL = 2048
"""The most rows that FAISS finds for a query on a GPU."""


class Clone(Protocol):
    """Puts an index of FAISS on the GPU; to be called and used in the thread of its `Gpu` alone."""

    def __call__(self, index: Any, *, float16: bool) -> Any:
        """The flat `index`, with its rows, on the GPU; `float16` halves what a row takes there."""
        ...


class Gpu:
    """A GPU and its owner, a thread. `close` ends the thread.

    Args:
        connect: makes the GPU's `Clone`; called once, in the owner thread.
        required: a refusal is an error instead of a reason to go on without the GPU.
        announce: takes a line for the user when the GPU is given up.
        memory_bytes: all that it has; 0 where that is not known.

    Raises:
        ConfigError: the GPU refuses, and it is required.
    """

    def __init__(
        self,
        connect: Callable[[], Clone],
        *,
        required: bool,
        announce: Announce = silent,
        memory_bytes: int = 0,
    ) -> None:
        self.memory_bytes = memory_bytes
        self._evict: Callable[[], None] = lambda: None
        self._required = required
        self._announce = announce
        self._given_up = False
        self._clone: Clone | None = None
        self._owner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="faiss-gpu")
        try:
            self._clone = self._owned("be used", connect)
        except ConfigError:
            self._owner.shutdown()
            raise

    def attempt(self, what: str, work: Callable[[Clone], Value]) -> Value | None:
        """Return what `work` makes with the clone function in the owner thread.

        None where the processor has to do it.

        Args:
            what: the end of the sentence "the GPU cannot …".

        Raises:
            ConfigError: the GPU refuses, and it is required.
        """
        clone = self._clone
        return None if clone is None else self._owned(what, lambda: work(clone))

    def make_room(self, evict: Callable[[], None]) -> None:
        """Evict the last index from the GPU, and note how to evict the caller.

        A server that changes to a new index would need room for two otherwise. To be called in the
        owner thread.
        """
        if self._evict != evict:
            self._evict()
        self._evict = evict

    def release(self, held: list[Any]) -> None:
        """Empty the list in the owner thread, so that what it held leaves the GPU."""
        try:
            self._owner.submit(held.clear).result()
        except RuntimeError:  # the thread has ended
            held.clear()

    def close(self) -> None:
        """Let go of the GPU; what is asked afterwards is the processor's.

        Calling it again does nothing.
        """
        self._given_up, self._clone = True, None
        self._owner.shutdown()

    def _owned(self, what: str, call: Callable[[], Value]) -> Value | None:
        try:
            return self._owner.submit(call).result()
        # FAISS reports everything as RuntimeError, a full memory too.
        except (RuntimeError, MemoryError) as error:
            reason = (
                "its memory is full"
                if _memory_is_full(error)
                else last_line(error, default=repr(error))
            )
            if self._required:
                raise ConfigError(f"The GPU cannot {what}: {reason}.", hint=WITHOUT_GPU) from error
            if not self._given_up:
                self._announce(f"The GPU cannot {what}: {reason}. The processor does it.")
            self._given_up, self._clone = True, None
            return None


@contextmanager
def opened_gpu(device: str, *, announce: Announce = silent) -> Iterator[Gpu | None]:
    """Yield the first GPU while the block runs; None where FAISS is to use the processor.

    Args:
        device: one of `NO_NVIDIA`; "auto", which takes the GPU where there is one and says a line
            where one is there and cannot be used; or "cuda", which insists.

    Raises:
        ConfigError: another name, FAISS cannot be loaded, or "cuda" where FAISS has no GPU.
    """
    check_device(device)
    faiss = import_faiss() if device not in NO_NVIDIA else None
    # Built without GPUs, FAISS leaves everything to the processor; that was the choice of who
    # installed it.
    if faiss is None or (device == "auto" and not hasattr(faiss, "StandardGpuResources")):
        yield None
        return
    driver = nvidia_driver()
    problem = _problem(faiss, driver)
    if problem and device == "cuda":
        raise ConfigError(f"FAISS cannot use a GPU: {problem}.", hint=WITHOUT_GPU)
    if problem:
        if driver.present:
            announce(f"FAISS cannot use the GPU: {problem}. The processor searches.")
        yield None
        return
    gpu = Gpu(
        _connect, required=device == "cuda", announce=announce, memory_bytes=driver.memory_bytes
    )
    try:
        yield gpu
    finally:
        gpu.close()


def _problem(faiss: Any, driver: NvidiaDriver) -> str:
    """Return why FAISS has no GPU; "" if it has one.

    FAISS is asked last: it ends the process where the driver answers with an error that it does not
    expect.
    """
    if driver.problem:
        return driver.problem
    if not hasattr(faiss, "StandardGpuResources"):
        return "the package faiss-cpu is installed, not faiss-gpu"
    if faiss.get_num_gpus() < 1:
        major, minor = driver.cuda
        return (
            f"the driver of {driver.gpu} runs CUDA {major}.{minor} at most, which is too old for "
            "this FAISS"
        )
    return ""


def _connect() -> Clone:
    """Return the clone function of the first GPU."""
    faiss = import_faiss()
    resources = faiss.StandardGpuResources()

    def clone(index: Any, *, float16: bool) -> Any:
        options = faiss.GpuClonerOptions()
        options.useFloat16 = float16
        return faiss.index_cpu_to_gpu(resources, 0, index, options)

    return clone


def _memory_is_full(error: Exception) -> bool:
    return (
        isinstance(error, MemoryError)
        or "out of memory" in str(error)
        or "cudaMalloc" in str(error)
    )
