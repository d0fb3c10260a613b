"""modelscope's OFA, the independent reference; it is run, not shipped or copied.

Importing it as a package would need a dozen libraries that its OFA does not use, so three shims
stand around its unchanged files: empty packages above them, a stand-in for the one class of fairseq
that it names, and a default that transformers 5 no longer sets. `make test-ofa` puts it on the
path.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin

from imprompt.ensemble.ofa.captioner import beam_search
from tests.ensemble.ofa.builders import answer_ids, pixels, prompt_ids, shapes_of, weights

_PACKAGES = (
    "modelscope",
    "modelscope.models",
    "modelscope.models.multi_modal",
    "modelscope.models.multi_modal.ofa",
)


def reference_model(settings: dict[str, Any]) -> Any:
    """modelscope's `OFAModel` with random weights of its own, ready for inference."""
    modeling, configuration = _modules()
    model = modeling.OFAModel(configuration.OFAConfig(**settings)).eval()
    return model.requires_grad_(False)


def set_weights(model: Any, *, pull: float) -> None:
    """Give it the weights that `builders.weights` makes from its own names."""
    model.load_state_dict(model.state_dict() | weights(shapes_of(model.state_dict()), pull=pull))


def reference_outputs(model: Any, n: int) -> dict[str, Tensor]:
    """Return its encoder states, logits and beams for the first `n` inputs, without a cache."""
    patches = torch.ones(n, dtype=torch.bool)
    with torch.inference_mode():
        encoded = model.encoder(
            input_ids=prompt_ids(n), patch_images=pixels(n), patch_masks=patches
        )
        logits = model(encoder_outputs=encoded, decoder_input_ids=answer_ids(n)).logits
        searched = _search(model, encoded)
    return {"states": encoded.last_hidden_state, "logits": logits, "tokens": searched}


@contextmanager
def on_meta_device() -> Iterator[None]:
    """Make models without memory; numbers that modelscope reads meanwhile stay real."""
    linspace = torch.linspace
    torch.linspace = lambda *args, **kwargs: linspace(*args, **{**kwargs, "device": "cpu"})
    try:
        with torch.device("meta"):
            yield
    finally:
        torch.linspace = linspace


def _search(model: Any, encoded: Any) -> Tensor:
    """Run transformers' beam search on it, with the mixin that it no longer inherits."""

    class Searchable(type(model), GenerationMixin):  # type: ignore[misc]
        _expand_inputs_for_generation = GenerationMixin._expand_inputs_for_generation

        def prepare_inputs_for_generation(
            self, input_ids: Tensor, encoder_outputs: Any = None, **_: Any
        ) -> dict[str, Any]:
            return {"decoder_input_ids": input_ids, "encoder_outputs": encoder_outputs}

    searchable = Searchable(model.config).eval()
    searchable.load_state_dict(model.state_dict())
    settings = beam_search()
    settings.use_cache = False
    tokens: Tensor = searchable.generate(
        encoder_outputs=type(encoded)(**encoded), generation_config=settings
    )
    return tokens


def _modules() -> tuple[Any, Any]:
    if "fairseq" not in sys.modules:
        spec = importlib.util.find_spec("modelscope")
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError("modelscope is not on the path; run `make test-ofa`")
        root = Path(next(iter(spec.submodule_search_locations))).parent
        for name in _PACKAGES:
            package = types.ModuleType(name)
            package.__path__ = [str(root.joinpath(*name.split(".")))]
            sys.modules[name] = package
        fairseq, modules = types.ModuleType("fairseq"), types.ModuleType("fairseq.modules")
        modules.LayerNorm = torch.nn.LayerNorm  # type: ignore[attr-defined]
        sys.modules |= {"fairseq": fairseq, "fairseq.modules": modules}
    configuration = importlib.import_module(f"{_PACKAGES[-1]}.configuration_ofa")
    configuration.OFAConfig.forced_bos_token_id = None
    return importlib.import_module(f"{_PACKAGES[-1]}.modeling_ofa"), configuration
