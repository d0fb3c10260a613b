"""Weights of OFA from disk into the network: read without running code, every name and shape accounted for."""

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
_REMEDY = "Fetch the weights of OFA-Sys/ofa-large-caption again, with the config.json that belongs to them."
_TIED = (
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "decoder.output_projection.weight",
)
"""One table under three names; safetensors files keep only one of them."""
_IMAGE_WRITER = re.compile(
    r"decoder\.(code_layernorm_embedding|embed_image_positions|image_pos_ln|image_position_idx|image_rel_pos_table_list|image_rp_bucket)\b"
)
"""Tensors of the decoder that only serve to write images; in every checkpoint, and not in our network."""
_NAMES_SHOWN = 3


def fill(network: Ofa, tensors: dict[str, Tensor], *, config: OfaConfig, path: Path) -> None:
    """Give `network` its weights, in float32 and without a copy where they are.

    Args:
        network: built from `config`, on any device, the meta device too.
        tensors: by their names in the checkpoint, with or without a leading `model.`. Tables that
            `config` determines may be missing; where they are there, they hold.
        config: of the network.
        path: the file that the tensors came from, for messages.

    Raises:
        WeightsRejected: names are missing or unknown, shapes or kinds differ, the output is not
            tied to the input, or a table points outside of another.
    """
    found = {
        name: tensor
        for name, tensor in _unprefixed(tensors, path).items()
        if not _IMAGE_WRITER.match(name)
    }
    _untie(found, path)
    wanted = network.state_dict()
    _complete(found, wanted, config)
    misfits = [
        name
        for name, tensor in found.items()
        if name in wanted and _form(tensor) != _form(wanted[name])
    ]
    _reject("lacks", [name for name in wanted if name not in found], path)
    _reject(
        "has, beyond those of the network,", [name for name in found if name not in wanted], path
    )
    _reject(
        "has in another shape or kind",
        [f"{name} {tuple(found[name].shape)}" for name in misfits],
        path,
    )
    _check_tables(found, config, path)
    network.load_state_dict(
        {
            name: tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in found.items()
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


def _untie(found: dict[str, Tensor], path: Path) -> None:
    """Leave the one name of the shared table that the network knows."""
    import torch

    tables = [found.pop(name) for name in _TIED if name in found]
    if not tables:
        return
    if any(table is not tables[0] and not torch.equal(table, tables[0]) for table in tables[1:]):
        raise WeightsRejected(
            f"{path} has an output that is not tied to its input.", path=path, hint=_REMEDY
        )
    found[_TIED[0]] = tables[0]


def _complete(found: dict[str, Tensor], wanted: Iterable[str], config: OfaConfig) -> None:
    """Add what a checkpoint may leave out: tables of buckets, and counters of training steps, which inference never reads."""
    import torch

    from imprompt.ensemble.ofa.network import image_buckets, token_buckets

    makers = {
        "token_rp_bucket": lambda: token_buckets(config),
        "image_rp_bucket": lambda: image_buckets(config),
        "num_batches_tracked": lambda: torch.tensor(0),
    }
    for name in wanted:
        if name not in found and (make := makers.get(name.rpartition(".")[2])):
            found[name] = make()


def _check_tables(found: dict[str, Tensor], config: OfaConfig, path: Path) -> None:
    rows = {
        "token_rp_bucket": 2 * config.token_bucket_size - 1,
        "image_rp_bucket": (2 * config.image_bucket_size - 1) ** 2 + 3,
    }
    tables = {name: name.rpartition(".")[2] for name in found}
    _reject(
        "points outside of the relative positions in",
        [
            name
            for name, kind in tables.items()
            if kind in rows and (found[name].min() < 0 or found[name].max() >= rows[kind])
        ],
        path,
    )


def _form(tensor: Tensor) -> tuple[tuple[int, ...], bool]:
    return tuple(tensor.shape), tensor.is_floating_point()


def _reject(what: str, names: Sequence[str], path: Path) -> None:
    if names:
        shown = ", ".join(names[:_NAMES_SHOWN]) + (", …" if len(names) > _NAMES_SHOWN else "")
        raise WeightsRejected(
            f"{path} {what} {len(names)} tensors: {shown}.", path=path, hint=_REMEDY
        )
