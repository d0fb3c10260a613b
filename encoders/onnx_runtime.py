"""ONNX Runtime, which computes `lite` (`Graph`) and untrusted taggers (`ForeignGraph`).

The graphs of this package hold the shapes of their weights, but not the numbers, which come from
other files. `graphs/write_graphs.py` writes the graphs.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
from numpy.typing import NDArray
from packaging.version import Version

from imprompt.core.device_names import nvidia_driver
from imprompt.core.errors import EncoderError, WeightsMissing, WeightsRejected, first_line
from imprompt.core.hub.fetch import Announce
from imprompt.core.pip_lines import pip_install
from imprompt.core.text import size_text
from imprompt.core.values import Vectors
from imprompt.encoders.memory import out_of_memory

GRAPHS = Path(__file__).with_name("graphs")
OLDEST = Version("1.25")
"""The oldest version that the tests were run with; 1.22 lacks an operator of MiniLM's graph."""

MAX_FILE_BYTES = 2 << 30
"""Of a foreign graph, which is one protobuf message; protobuf allows no more."""
MAX_MEMORY_BYTES = 6 << 30
"""Of all foreign graphs together, weights and activations."""
TIME_LIMIT_S = 300.0
"""Of one call of a foreign graph."""

_ARENA = "BFCArena"
"""A word in the message of the limited allocator."""
_CUDA = "CUDAExecutionProvider"
_PROCESSOR = "CPUExecutionProvider"


class Graph:
    """A network with its weights.

    Args:
        path: of the graph, one of `GRAPHS`.
        tensors: float32 weights by name.
        weights: their file, for errors.
        on_cuda: compute on the first CUDA device; `device` tells whether that was possible.

    Raises:
        EncoderError: ONNX Runtime cannot be loaded, or is too old.
        WeightsMissing: the graph is not there.
        WeightsRejected: it is damaged, or does not fit the weights.
    """

    def __init__(
        self,
        path: Path,
        tensors: Mapping[str, NDArray[np.float32]],
        *,
        weights: Path,
        on_cuda: bool = False,
    ) -> None:
        runtime = import_onnxruntime()
        options = _session_options(runtime)
        values = [runtime.OrtValue.ortvalue_from_numpy(tensor) for tensor in tensors.values()]
        try:
            options.add_external_initializers(list(tensors), values)
            self._session = runtime.InferenceSession(
                path.read_bytes(),
                options,
                providers=[_CUDA, _PROCESSOR] if on_cuda else [_PROCESSOR],
            )
        except OSError as error:
            raise WeightsMissing(
                f"{path} cannot be read: {error.strerror}.",
                path=path,
                hint="Install imprompt again.",
            ) from error
        except Exception as error:  # the library's exceptions have no common class
            raise WeightsRejected(
                f"the network {path} does not fit the weights {weights}: {first_line(error)}.",
                path=path,
                hint="Install imprompt again.",
            ) from error
        self._input = self._session.get_inputs()[0].name
        self.device = "cuda" if self._session.get_providers()[0] == _CUDA else "cpu"

    def __call__(self, batch: NDArray[Any]) -> Vectors:
        """Return the network's (n, …) float32 rows for a batch; safe between threads.

        Raises:
            MemoryError: the batch does not fit.
            EncoderError: anything else that goes wrong.
        """
        try:
            rows: Vectors = self._session.run(None, {self._input: batch})[0]
        except Exception as error:  # the library's exceptions have no common class
            if out_of_memory(error):
                raise MemoryError(first_line(error)) from error
            raise EncoderError(f"ONNX Runtime fails: {first_line(error)}.") from error
        return rows


class ForeignGraph:
    """An untrusted ONNX model, with its weights in the same file and one float32 input.

    It may use ONNX Runtime's own operators only, reads no other file, takes at most
    `MAX_MEMORY_BYTES`, and a call ends after `TIME_LIMIT_S`. `input_shape` is the shape that it
    declares, with None for each free size.

    Args:
        path: of the file.
        hint: the remedy, for errors.
        on_cuda: compute on the first CUDA device if possible; `device` says which it is.

    Raises:
        EncoderError: ONNX Runtime cannot be loaded, or is too old.
        WeightsMissing: the file cannot be read.
        WeightsRejected: it is too large, damaged, or not such a model.
    """

    def __init__(self, path: Path, *, hint: str, on_cuda: bool = False) -> None:
        self._path, self._hint = path, hint
        runtime = import_onnxruntime()
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise self._rejected(f"is longer than {MAX_FILE_BYTES:,} bytes")
            content = path.read_bytes()
        except OSError as error:
            raise WeightsMissing(
                f"{path} cannot be read: {error.strerror}.", path=path, hint=hint
            ) from error
        _bound_memory()
        options = _session_options(runtime)
        options.add_session_config_entry("session.use_env_allocators", "1")
        providers: list[Any] = [_PROCESSOR]
        if on_cuda:
            providers.insert(0, (_CUDA, {"gpu_mem_limit": str(MAX_MEMORY_BYTES)}))
        # ONNX Runtime looks for tensors in other files below this folder only.
        with tempfile.TemporaryDirectory() as empty:
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", empty
            )
            try:
                # Constant folding would run operators before any limit applies.
                self._session = runtime.InferenceSession(
                    content, options, providers=providers, disabled_optimizers=["ConstantFolding"]
                )
            except Exception as error:  # the library's exceptions have no common class
                raise self._rejected(f"cannot be loaded: {first_line(error)}") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)":
            raise self._rejected("does not have exactly one input, of float32")
        self._input = inputs[0].name
        self.input_shape = tuple(
            size if isinstance(size, int) else None for size in inputs[0].shape or ()
        )
        self.device = "cuda" if self._session.get_providers()[0] == _CUDA else "cpu"

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[Any]:
        """Return the model's first output for a batch; threads may share it.

        Raises:
            WeightsRejected: it exceeds its memory or time limit, or fails.
        """
        run = import_onnxruntime().RunOptions()
        run.log_severity_level = 4
        timer = Timer(TIME_LIMIT_S, setattr, (run, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            output = self._session.run(None, {self._input: batch}, run)[0]
        except Exception as error:  # the library's exceptions have no common class
            if run.terminate:
                raise self._rejected(f"takes more than {TIME_LIMIT_S:g} s for a batch") from error
            if _ARENA in str(error):
                raise self._rejected(
                    f"needs more than {size_text(MAX_MEMORY_BYTES)} of memory"
                ) from error
            raise self._rejected(f"cannot be computed: {first_line(error)}") from error
        finally:
            timer.cancel()
        if not isinstance(output, np.ndarray):
            raise self._rejected("does not output an array")
        return output

    def _rejected(self, what: str) -> WeightsRejected:
        return WeightsRejected(f"{self._path} {what}.", path=self._path, hint=self._hint)


def _session_options(runtime: Any) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = n_threads()
    options.log_severity_level = 4
    # Plans of memory are kept for every shape, and texts come in hundreds of shapes.
    options.enable_mem_pattern = False
    # Threads that wait in a loop for the next call take the processor from everything else.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


@cache
def _bound_memory() -> None:
    """Register an allocator with a limit, for the sessions of this process that ask for it."""
    runtime = import_onnxruntime()
    place = runtime.OrtMemoryInfo(
        "Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT
    )
    as_requested = 1  # otherwise the arena grows by doubling
    limits = runtime.OrtArenaCfg(
        {"max_mem": MAX_MEMORY_BYTES, "arena_extend_strategy": as_requested}
    )
    runtime.create_and_register_allocator(place, limits)


def import_onnxruntime() -> Any:
    """Return the module `onnxruntime`.

    Raises:
        EncoderError: it is not installed, cannot be loaded, or is older than `OLDEST`.
    """
    stop_telemetry()
    try:
        import onnxruntime
    except (ImportError, OSError) as error:
        raise EncoderError(
            f"ONNX Runtime cannot be loaded: {first_line(error)}.",
            hint=f"Install it again: {pip_install('--force-reinstall onnxruntime')}",
        ) from error
    version = Version(onnxruntime.__version__)
    if version < OLDEST:
        raise EncoderError(
            f"ONNX Runtime is {version}; imprompt needs {OLDEST} or newer.",
            hint=f"Update it: {pip_install('--upgrade onnxruntime')}",
        )
    return onnxruntime


def stop_telemetry() -> None:
    """Keep ONNX Runtime from reporting its use to its maker, here and in processes started later.

    Since 1.29 it does, unless this was called before it is imported.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def onnx_device(device: str, *, announce: Announce) -> str:
    """Return where ONNX Runtime computes: "cuda" if it may and can, else "cpu".

    Args:
        device: "auto" and "cuda" take CUDA, if there is a GPU and `onnxruntime-gpu` is installed.
        announce: takes a line for the user where a GPU is not used.
    """
    if device == "mps":
        announce("Images are encoded on the CPU: their tower does not run on mps.")
    if device not in ("auto", "cuda"):
        return "cpu"
    driver = nvidia_driver()
    if not driver.problem and _CUDA in import_onnxruntime().get_available_providers():
        return "cuda"
    if device == "cuda" or not driver.problem:
        why = driver.problem or "onnxruntime-gpu is not installed in place of onnxruntime"
        announce(f"Images are encoded on the CPU: {why}.")
    return "cpu"


def n_threads() -> int:
    """Return how many threads a network gets: OMP_NUM_THREADS, else the processors at hand."""
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    if chosen.isdigit() and int(chosen) > 0:
        return int(chosen)
    if hasattr(os, "sched_getaffinity"):  # Linux; respects taskset and containers' processor sets
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def onnx_provenance(*, batch_size: int) -> dict[str, str | int]:
    """Return how a network computes on the CPU, for the record of a shard.

    Where two of these are equal, equal items give equal bytes.
    """
    return {
        "backend": "onnxruntime",
        "device": "cpu",
        "dtype": "float32",
        "threads": n_threads(),
        "batch_size": batch_size,
    }
