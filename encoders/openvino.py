"""A torch network run by OpenVINO on the CPU: the same float32 arithmetic in fewer, larger steps.

Only for `lite`'s images, where it takes a third of the time and differs by rounding;
docs/performance.md has the measurements, of other towers too.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imprompt.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

_TELEMETRY = "openvino_telemetry"


def compiled(network: Any, example: Tensor) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Return a function from a batch of any size to the network's rows, safe between threads.

    Args:
        network: a torch module in evaluation mode, of one (n, …) input and one (n, dim) output.
        example: an input; all dimensions but the first are fixed by it.

    Raises:
        ConfigError: OpenVINO is not installed.
    """
    import torch

    openvino = import_openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that tracing is deprecated
        # The decoder must outlive the model.
        decoder = TorchScriptPythonDecoder(network, example_input=(example,))
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
    model.reshape(openvino.PartialShape([-1, *example.shape[1:]]))
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
    }
    executable = openvino.Core().compile_model(model, "CPU", options)

    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = executable.create_infer_request().infer([batch])[0]
        return rows

    return run


def import_openvino() -> Any:
    """Return the module `openvino`, without the telemetry that it would send at every import.

    Raises:
        ConfigError: it is not installed.
    """
    silenced = _TELEMETRY not in sys.modules
    if silenced:
        # openvino then uses its built-in stub, which sends nothing.
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        raise ConfigError(
            f"The device openvino needs a package: {error}.",
            hint="pip install 'imprompt[openvino]', or choose --device cpu.",
        ) from error
    finally:
        if silenced:
            del sys.modules[_TELEMETRY]
    return openvino
