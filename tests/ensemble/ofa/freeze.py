"""Writes the frozen tensors of the ordinary tests from modelscope's OFA; run by hand only.

After `make test-ofa` has fetched the reference: `PYTHONPATH=.venv-ofa .venv/bin/python -m
tests.ensemble.ofa.freeze`
"""

from __future__ import annotations

from safetensors.torch import save_file
from torch import Tensor

from tests.ensemble.ofa.builders import EARLY, LARGE, LARGE_NAMES, LATE, REFERENCE, TINY
from tests.ensemble.ofa.modelscope_reference import (
    on_meta_device,
    reference_model,
    reference_outputs,
    set_weights,
)

N_IMAGES = 4


def frozen_tensors() -> dict[str, Tensor]:
    """What stands in `reference.safetensors`."""
    model = reference_model(TINY)
    set_weights(model, pull=EARLY)
    early = reference_outputs(model, N_IMAGES)["tokens"]
    set_weights(model, pull=LATE)
    return {**reference_outputs(model, N_IMAGES), "early_tokens": early}


def frozen_names() -> str:
    """Return the lines of `large_state_dict.tsv`: name, shape and kind of each tensor."""
    with on_meta_device():
        named = reference_model(LARGE).state_dict()
    lines = (
        f"{name}\t{','.join(map(str, tensor.shape))}\t{str(tensor.dtype)[6:]}\n"
        for name, tensor in named.items()
    )
    return "".join(lines)


if __name__ == "__main__":
    save_file({name: tensor.contiguous() for name, tensor in frozen_tensors().items()}, REFERENCE)
    LARGE_NAMES.write_text(frozen_names(), "utf-8")
