"""Our OFA beside modelscope's, live: the same random weights, the same inputs.

Run by `make test-ofa` alone, which fetches it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from imprompt.ensemble.ofa.captioner import MAX_TOKENS, beam_search
from imprompt.ensemble.ofa.network import Ofa, image_buckets, token_buckets
from imprompt.ensemble.ofa.ofa_checkpoint import fill
from imprompt.ensemble.ofa.ofa_config import END, START, OfaConfig
from tests.ensemble.ofa.builders import (
    EARLY,
    LARGE_CONFIG,
    LARGE_NAMES,
    LATE,
    REFERENCE,
    TINY,
    answer_ids,
    pixels,
    prompt_ids,
)
from tests.ensemble.ofa.freeze import frozen_names, frozen_tensors
from tests.ensemble.ofa.modelscope_reference import reference_model, reference_outputs, set_weights

TOLERANCE = 1e-4
LARGE_IN_SMALL: dict[str, Any] = {
    **TINY,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
    "d_model": 64,
    "resnet_type": "resnet152",
    "max_position_embeddings": 1024,
    "token_bucket_size": 256,
    "image_bucket_size": 42,
}
"""Depth, heads, trunk and tables of the large size; widths and the vocabulary are small."""


@pytest.mark.parametrize("settings", [TINY, LARGE_IN_SMALL], ids=["tiny", "large"])
@pytest.mark.parametrize("pull", [LATE, EARLY], ids=["late", "early"])
def test_states_logits_and_tokens_agree(settings: dict[str, Any], pull: float) -> None:
    """The same weights give states and logits within 1e-4, and equal beams, early ends included."""
    model = reference_model(settings)
    set_weights(model, pull=pull)
    expected = reference_outputs(model, 3)
    config = OfaConfig(**{name: value for name, value in settings.items() if name != "model_type"})
    network = Ofa(config)
    fill(
        network,
        {f"model.{name}": tensor for name, tensor in model.state_dict().items()},
        config=config,
        path=Path("same"),
    )
    with torch.inference_mode():
        source = network.encode(pixels(3), prompt_ids(3))
        logits = network(answer_ids(3), source).logits
        tokens = network.generate(
            torch.full((3, 1), START), source=source, generation_config=beam_search()
        )
    assert (source.states - expected["states"]).abs().max() < TOLERANCE
    assert (logits - expected["logits"]).abs().max() < TOLERANCE
    assert torch.equal(tokens, expected["tokens"])
    assert ((tokens == END).float().argmax(dim=1) < MAX_TOKENS - 1).any() == (pull == EARLY)


def test_tables_of_buckets_agree() -> None:
    """The reference's own tables, at the large size, to the last entry."""
    model = reference_model({**TINY, "token_bucket_size": 256, "image_bucket_size": 42})
    assert torch.equal(model.encoder.token_rp_bucket, token_buckets(LARGE_CONFIG))
    assert torch.equal(model.decoder.token_rp_bucket, token_buckets(LARGE_CONFIG))
    assert torch.equal(model.encoder.image_rp_bucket, image_buckets(LARGE_CONFIG))


def test_frozen_tensors_are_still_those_of_the_reference() -> None:
    """What the ordinary suite compares with is what the reference makes today."""
    frozen = load_file(REFERENCE)
    live = frozen_tensors()
    assert frozen.keys() == live.keys()
    for name, tensor in live.items():
        assert torch.allclose(frozen[name].double(), tensor.double(), atol=TOLERANCE), name


def test_frozen_names_are_still_those_of_the_reference() -> None:
    """The 1,625 names, shapes and kinds at the large size, in order."""
    assert LARGE_NAMES.read_text("utf-8") == frozen_names()
