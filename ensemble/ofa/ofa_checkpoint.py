"""The weights of an OFA checkpoint, given to the network; every name and shape is checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imprompt.core.errors import WeightsRejected
from imprompt.ensemble.ofa.ofa_config import OfaConfig

if TYPE_CHECKING:
    from torch import Tensor

    from imprompt.ensemble.ofa.network import Ofa

_PREFIX = "model."
_REMEDY = "Fetch the weights of OFA-Sys/ofa-large-caption again, with their config.json."
_TIED = (
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "decoder.output_projection.weight",
)
"""One table under three names; safetensors files keep only one of them."""
_IMAGE_WRITER = re.compile(
    r"decoder\.(code_layernorm_embedding|embed_image_positions|image_pos_ln|image_position_idx"
    r"|image_rel_pos_table_list|image_rp_bucket)\b"
)
"""Tensors of the decoder that only serve to write images; our network has none of them."""
_NAMES_SHOWN = 3


def fill(network: Ofa, tensors: dict[str, Tensor], *, config: OfaConfig, path: Path) -> None:
    """Give `network` its weights as float32, copied only where they are not float32.

    Args:
        network: built from `config`, on any device, including meta.
        tensors: by their names in the checkpoint, with or without a leading `model.`. Tables that
            `config` determines may be missing; if present, they are used.
        config: of the network.
        path: the file of the tensors, for messages.

    Raises:
        WeightsRejected: names are missing or unknown, shapes or kinds differ, the output is not
            tied to the input, or a table points outside of another.
    """
    named = {
        name: tensor
        for name, tensor in _unprefixed(tensors, path).items()
        if not _IMAGE_WRITER.match(name)
    }
    _untie(named, path)
    expected = network.state_dict()
    _complete(named, expected, config)
    misfits = [
        name
        for name, tensor in named.items()
        if name in expected and _form(tensor) != _form(expected[name])
    ]
    _reject("lacks", [name for name in expected if name not in named], path)
    surplus = [name for name in named if name not in expected]
    _reject("has, beyond those of the network,", surplus, path)
    shapes = [f"{name} {tuple(named[name].shape)}" for name in misfits]
    _reject("has in another shape or kind", shapes, path)
    _check_tables(named, config, path)
    network.load_state_dict(
        {
            name: tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in named.items()
        },
        assign=True,
    )
    network.requires_grad_(False).eval()


def _unprefixed(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    named = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    if len(named) < len(tensors):
        twice = [name for name in tensors if _PREFIX + name in tensors]
        _reject("has both with and without 'model.'", twice, path)
    return named


def _untie(named: dict[str, Tensor], path: Path) -> None:
    """Keep only one name of the shared table, the network's."""
    import torch

    tables = [named.pop(name) for name in _TIED if name in named]
    if not tables:
        return
    if any(table is not tables[0] and not torch.equal(table, tables[0]) for table in tables[1:]):
        raise WeightsRejected(
            f"{path} has an output that is not tied to its input.", path=path, hint=_REMEDY
        )
    named[_TIED[0]] = tables[0]


def _complete(named: dict[str, Tensor], expected: Iterable[str], config: OfaConfig) -> None:
    """Add what a checkpoint may omit: tables of buckets, and counters of training steps."""
    import torch

    from imprompt.ensemble.ofa.network import image_buckets, token_buckets

    makers = {
        "token_rp_bucket": lambda: token_buckets(config),
        "image_rp_bucket": lambda: image_buckets(config),
        "num_batches_tracked": lambda: torch.tensor(0),
    }
    for name in expected:
        if name not in named and (make := makers.get(name.rpartition(".")[2])):
            named[name] = make()


def _check_tables(named: dict[str, Tensor], config: OfaConfig, path: Path) -> None:
    rows = {
        "token_rp_bucket": 2 * config.token_bucket_size - 1,
        "image_rp_bucket": (2 * config.image_bucket_size - 1) ** 2 + 3,
    }
    outside = []
    for name, tensor in named.items():
        n_rows = rows.get(name.rpartition(".")[2])
        if n_rows is not None and (tensor.min() < 0 or tensor.max() >= n_rows):
            outside.append(name)
    _reject("points outside of the relative positions in", outside, path)


def _form(tensor: Tensor) -> tuple[tuple[int, ...], bool]:
    return tuple(tensor.shape), tensor.is_floating_point()


def _reject(fault: str, names: Sequence[str], path: Path) -> None:
    if names:
        shown = ", ".join(names[:_NAMES_SHOWN]) + (", …" if len(names) > _NAMES_SHOWN else "")
        raise WeightsRejected(
            f"{path} {fault} {len(names)} tensors: {shown}.", path=path, hint=_REMEDY
        )
