"""ONNX Runtime, which computes `lite`: graphs of this package with weights from other files.

A graph has the shapes of its weights and none of their numbers. `graphs/write_graphs.py` writes
them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from packaging.version import Version

from imprompt.core.device_names import nvidia_driver
from imprompt.core.errors import EncoderError, WeightsMissing, WeightsRejected, first_line
from imprompt.core.hub.fetch import Announce
from imprompt.core.pip_lines import pip_install
from imprompt.core.values import Vectors
from imprompt.encoders.memory import out_of_memory

GRAPHS = Path(__file__).with_name("graphs")
OLDEST = Version("1.24")
"""The oldest version that the tests were run with; 1.22 lacks an operator of MiniLM's graph."""

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
        options = runtime.SessionOptions()
        options.intra_op_num_threads = n_threads()
        options.log_severity_level = 4
        # Plans of memory are kept for every shape, and texts come in hundreds of shapes.
        options.enable_mem_pattern = False
        # Threads that wait in a loop for the next call take the processor from everything else.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
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
