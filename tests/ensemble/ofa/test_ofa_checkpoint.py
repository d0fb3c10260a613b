"""Which checkpoints are taken, and what is said of the others."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from imprompt.core.errors import WeightsMissing, WeightsRejected
from imprompt.encoders.checkpoints import read_tensors
from imprompt.ensemble.ofa.network import Ofa
from imprompt.ensemble.ofa.ofa_checkpoint import fill
from tests.ensemble.ofa.builders import TINY_CONFIG
from tests.ensemble.ofa.conftest import Tiny

SHARED = "encoder.embed_tokens.weight"


def filled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of a tiny network that was given `tensors`."""
    with torch.device("meta"):
        network = Ofa(TINY_CONFIG)
    fill(network, tensors, config=TINY_CONFIG, path=Path("tiny.bin"))
    return dict(network.state_dict())


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Whether two states have the same names, kinds and values."""
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name])
        for name in left
    )


def with_every_name(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As published: the shared table under three names, and the part that writes images."""
    return {
        **tensors,
        "decoder.embed_tokens.weight": tensors[SHARED].clone(),
        "decoder.output_projection.weight": tensors[SHARED].clone(),
        "decoder.image_position_idx": torch.arange(5),
        "decoder.code_layernorm_embedding.weight": torch.ones(32),
    }


ALIKE: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "every name of a published file": with_every_name,
    "names that begin with model.": lambda tensors: {
        f"model.{name}": tensor for name, tensor in with_every_name(tensors).items()
    },
    "the shared table under its last name": lambda tensors: (
        {name: tensor for name, tensor in tensors.items() if name != SHARED}
        | {"decoder.output_projection.weight": tensors[SHARED]}
    ),
    "tables of buckets in the file": lambda tensors: {
        **tensors,
        "decoder.token_rp_bucket": filled(tensors)["decoder.token_rp_bucket"],
    },
    "float64 numbers": lambda tensors: {
        name: tensor.double() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    },
}


@pytest.mark.parametrize("form", ALIKE.values(), ids=ALIKE.keys())
def test_forms_of_one_checkpoint_give_one_network(
    form: Callable[[dict[str, Tensor]], dict[str, Tensor]], tiny_tensors: dict[str, Tensor]
) -> None:
    """A prefix, a name more for a shared table or another precision changes nothing."""
    assert same(filled(form(tiny_tensors)), filled(tiny_tensors))


def test_the_tables_of_a_checkpoint_hold(tiny_tensors: dict[str, Tensor]) -> None:
    """Buckets that the file has are used as they are, even where ours would differ."""
    table = torch.zeros(1024, 1024, dtype=torch.int64)
    assert torch.equal(
        filled({**tiny_tensors, "decoder.token_rp_bucket": table})["decoder.token_rp_bucket"], table
    )


@pytest.mark.parametrize("name", ["weights.bin", "weights.safetensors"])
def test_both_kinds_of_file_are_read(
    name: str, tmp_path: Path, tiny_tensors: dict[str, Tensor]
) -> None:
    """What torch.save and safetensors write comes back as it was."""
    (torch.save if name.endswith("bin") else save_file)(tiny_tensors, tmp_path / name)
    assert same(read_tensors(tmp_path / name), tiny_tensors)


WRONG: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = {
    "missing": (
        lambda tensors: {
            name: tensor for name, tensor in tensors.items() if "encoder.layers.1." not in name
        },
        r"lacks 21 tensors: encoder\.layers\.1\.final_layer_norm\.weight, .*, .*, …",
    ),
    "no shared table": (
        lambda tensors: {name: tensor for name, tensor in tensors.items() if name != SHARED},
        r"lacks 1 tensors: encoder\.embed_tokens\.weight\.",
    ),
    "empty": (lambda _: {}, r"lacks \d+ tensors"),
    "unexpected": (
        lambda tensors: {
            **tensors,
            "encoder.extra": torch.ones(2),
            "decoder.layers.9.fc1.bias": torch.ones(2),
        },
        r"beyond those of the network, 2 tensors: encoder\.extra, decoder\.layers\.9\.fc1\.bias\.",
    ),
    "another shape": (
        lambda tensors: {**tensors, "encoder.pos_ln.bias": torch.ones(33)},
        r"in another shape or kind 1 tensors: encoder\.pos_ln\.bias \(33,\)\.",
    ),
    "another kind": (
        lambda tensors: {**tensors, "encoder.pos_ln.bias": torch.ones(32, dtype=torch.int8)},
        r"in another shape or kind 1 tensors: encoder\.pos_ln\.bias \(32,\)\.",
    ),
    "twice": (
        lambda tensors: {**tensors, "model.encoder.pos_ln.bias": tensors["encoder.pos_ln.bias"]},
        r"both with and without 'model\.' 1 tensors: encoder\.pos_ln\.bias\.",
    ),
    "not tied": (
        lambda tensors: {**tensors, "decoder.output_projection.weight": tensors[SHARED] + 1},
        r"an output that is not tied to its input",
    ),
    "bucket outside": (
        lambda tensors: {**tensors, "encoder.token_rp_bucket": torch.full((1024, 1024), 15)},
        r"points outside of the relative positions in 1 tensors: encoder\.token_rp_bucket\.",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG.keys())
def test_another_networks_weights_are_rejected(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    message: str,
    tiny_tensors: dict[str, Tensor],
) -> None:
    """Missing, unknown, misshapen or contradicting tensors: one line with names and remedy."""
    with pytest.raises(WeightsRejected, match=message) as caught:
        filled(change(tiny_tensors))
    assert caught.value.path == Path("tiny.bin")
    assert "OFA-Sys/ofa-large-caption" in caught.value.hint
    assert "\n" not in str(caught.value)


class Trap:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "write",
    [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))],
    ids=["torch", "pickle"],
)
def test_code_in_a_checkpoint_is_never_run(
    write: Callable[[object, Path], object], tmp_path: Path
) -> None:
    """A pickle that calls a function is refused before it does."""
    write(
        {"encoder.pos_ln.bias": torch.ones(2), "trap": Trap(tmp_path / "sprung")},
        tmp_path / "weights.bin",
    )
    with pytest.raises(WeightsRejected, match="holds more than tensors"):
        read_tensors(tmp_path / "weights.bin")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["weights.bin", "weights.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_rejected(name: str, share: float, tmp_path: Path) -> None:
    """Wherever a download stopped, the file is refused by name."""
    tensors = {"a": torch.ones(500, 20), "b": torch.ones(3)}
    (torch.save if name.endswith("bin") else save_file)(tensors, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(
        WeightsRejected, match=rf"{name}.*is not a (checkpoint of tensors|safetensors file)"
    ):
        read_tensors(tmp_path / name)


@pytest.mark.parametrize(
    "value", [torch.ones(2), [torch.ones(2)], {"state": {"a": torch.ones(2)}}, {"epoch": 3}]
)
def test_a_file_of_something_else_is_rejected(value: object, tmp_path: Path) -> None:
    """Tensors without names, or names without tensors."""
    torch.save(value, tmp_path / "weights.bin")
    with pytest.raises(WeightsRejected, match=r"not (a tensor|named tensors)"):
        read_tensors(tmp_path / "weights.bin")


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    """A path that names nothing, in either format."""
    for name in ("weights.bin", "weights.safetensors"):
        with pytest.raises(WeightsMissing, match=name):
            read_tensors(tmp_path / name)


def test_a_filled_network_is_ready(tiny: Tiny) -> None:
    """Inference only: no gradients, norms in evaluation, nothing left on the meta device."""
    network = tiny(0.0)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"cpu"}
