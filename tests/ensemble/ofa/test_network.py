"""The network against an independent implementation's tensors (`freeze.py`), and against itself."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import DynamicCache

from imprompt.ensemble.ofa.captioner import beam_search
from imprompt.ensemble.ofa.network import Ofa, image_buckets, token_buckets
from imprompt.ensemble.ofa.ofa_checkpoint import fill
from imprompt.ensemble.ofa.ofa_config import START
from tests.ensemble.ofa.builders import (
    EARLY,
    LARGE_CONFIG,
    LARGE_NAMES,
    LATE,
    REFERENCE,
    answer_ids,
    pixels,
    prompt_ids,
)
from tests.ensemble.ofa.conftest import Tiny

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def reference() -> dict[str, Tensor]:
    """What modelscope's OFA made of the builders' weights and inputs."""
    return load_file(REFERENCE)


def search(network: Ofa, n: int) -> Tensor:
    """Answers to the first `n` images, as the captioner searches them."""
    with torch.inference_mode():
        source = network.encode(pixels(4)[:n], prompt_ids(n))
        tokens: Tensor = network.generate(
            torch.full((n, 1), START), source=source, generation_config=beam_search()
        )
    return tokens


def test_encoder_states_are_those_of_the_reference(
    tiny: Tiny, reference: dict[str, Tensor]
) -> None:
    """Trunk, embeddings, position and relative biases, norms and gains: every state within 1e-4."""
    with torch.inference_mode():
        states = tiny(LATE).encode(pixels(4), prompt_ids(4)).states
    assert states.shape == reference["states"].shape
    assert (states - reference["states"]).abs().max() < TOLERANCE


def test_logits_are_those_of_the_reference(tiny: Tiny, reference: dict[str, Tensor]) -> None:
    """The decoder, its two kinds of attention and the tied output: every logit within 1e-4."""
    with torch.inference_mode():
        network = tiny(LATE)
        logits = network(answer_ids(4), network.encode(pixels(4), prompt_ids(4))).logits
    assert logits.shape == reference["logits"].shape
    assert (logits - reference["logits"]).abs().max() < TOLERANCE


def test_beams_write_the_tokens_of_the_reference(tiny: Tiny, reference: dict[str, Tensor]) -> None:
    """Beam search gives the same tokens as the reference, which has no cache, up to the limit."""
    assert torch.equal(search(tiny(LATE), 4), reference["tokens"])


def test_beams_end_where_the_reference_ends(tiny: Tiny, reference: dict[str, Tensor]) -> None:
    """The same where answers end early, each at another length, and padding follows."""
    ends = (reference["early_tokens"] == 2).float().argmax(dim=1).tolist()
    assert len(set(ends)) == 3
    assert torch.equal(search(tiny(EARLY), 4), reference["early_tokens"])


def test_an_answer_does_not_depend_on_its_batch(tiny: Tiny) -> None:
    """One image alone gets the tokens that it gets among four."""
    assert torch.equal(search(tiny(LATE), 1)[0], search(tiny(LATE), 4)[0])


def test_tokens_one_by_one_give_the_logits_of_all_at_once(tiny: Tiny) -> None:
    """What the cache holds is what a whole pass computes, also with three beams for each image."""
    network, beams = tiny(LATE), 3
    answers = answer_ids(2 * beams)
    with torch.inference_mode():
        source = network.encode(pixels(2), prompt_ids(2))
        whole = network(answers, source).logits
        past = DynamicCache()
        steps = [
            network(answers[:, [place]], source, past).logits for place in range(answers.shape[1])
        ]
        alone = network(answers[4:5], network.encode(pixels(2)[1:], prompt_ids(1))).logits
    assert torch.allclose(torch.cat(steps, dim=1), whole, atol=1e-5)
    assert torch.allclose(alone[0], whole[4], atol=1e-5)


def large_state_dict() -> dict[str, Tensor]:
    """The large size has the reference's 1,625 names and shapes; tables are as computed."""
    named = [line.split("\t") for line in LARGE_NAMES.read_text("utf-8").splitlines()]
    shared = torch.empty(LARGE_CONFIG.vocab_size, LARGE_CONFIG.d_model, device="meta")
    found = {}
    for name, shape, kind in named:
        dims = [int(size) for size in shape.split(",") if size]
        tied = dims == list(shared.shape)
        found[name] = (
            shared if tied else torch.empty(dims, dtype=getattr(torch, kind), device="meta")
        )
    tables = {
        "token_rp_bucket": token_buckets(LARGE_CONFIG),
        "image_rp_bucket": image_buckets(LARGE_CONFIG),
    }
    return found | {
        name: tables[name.rpartition(".")[2]] for name in found if name.endswith("_rp_bucket")
    }


def test_every_name_of_the_large_checkpoint_has_its_place() -> None:
    """All 1,625 names and shapes have a counterpart in the checkpoint.

    21 of the part that writes images are left out; ours has 470 M parameters.
    """
    large = large_state_dict()
    with torch.device("meta"):
        network = Ofa(LARGE_CONFIG)
    fill(network, large, config=LARGE_CONFIG, path=Path("large"))
    assert len(large) == 1625
    left_out = set(large) - set(network.state_dict())
    assert {name.split(".")[0] for name in left_out} == {"decoder"}
    assert len(left_out) == 21
    assert sum(parameter.numel() for parameter in network.parameters()) == 469_842_432


def test_tables_of_buckets_are_those_of_the_reference() -> None:
    """The sha256 of the reference's tables of buckets at the large size."""
    digests = [
        hashlib.sha256(table.numpy().astype("<i8").tobytes()).hexdigest()
        for table in (token_buckets(LARGE_CONFIG), image_buckets(LARGE_CONFIG))
    ]
    assert digests == [
        "20c31e82a79b5e99e560102fc14acca443cae87bcddffeb9021430a3dd46e46c",
        "f982ef63073e509c2bee49d3c0fcd15ab78c40b214d286478c0f58bad925b756",
    ]
