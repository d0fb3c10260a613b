"""The last stages of a trunk of `lite` as modules of torch, for `lite_trunk.py`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.lite_network import FROZEN_STAGES, Tensors
from imprompt.encoders.graphs.write_graphs import TRUNK_EPSILON, _blocks

DROPPED = 0.1
"""The share of residual blocks that a picture skips in training (stochastic depth)."""


class Convolution(nn.Module):
    """A convolution with its norm folded in, padded as `write_graphs._convolution` does."""

    def __init__(
        self, tensors: Tensors, names: tuple[str, str], stride: int = 1, relu6: bool = True
    ) -> None:
        super().__init__()
        weight = torch.tensor(tensors[f"{names[0]}.weight"])
        scale, bias, mean, variance = (
            torch.tensor(tensors[f"{names[1]}.{part}"])
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = scale / torch.sqrt(variance + TRUNK_EPSILON)
        self.weight = nn.Parameter(weight * scale[:, None, None, None])
        self.bias = nn.Parameter(bias - mean * scale)
        self.kernel, self.stride, self.relu6 = weight.shape[-1], stride, relu6
        self.groups = weight.shape[0] if weight.shape[1] == 1 else 1

    def forward(self, planes: Tensor) -> Tensor:
        side = planes.shape[-1]
        padding = max((math.ceil(side / self.stride) - 1) * self.stride + self.kernel - side, 0)
        before, after = padding // 2, padding - padding // 2
        if after > before:
            planes, before = functional.pad(planes, (before, after, before, after)), 0
        planes = functional.conv2d(
            planes, self.weight, self.bias, self.stride, before, 1, self.groups
        )
        return functional.relu6(planes) if self.relu6 else planes


class Block(nn.Module):
    """A block of EfficientNet-Lite."""

    def __init__(self, tensors: Tensors, number: int, stride: int, residual: bool) -> None:
        super().__init__()
        prefix = f"_blocks.{number}."
        self.layers = nn.Sequential(
            Convolution(tensors, (f"{prefix}_expand_conv", f"{prefix}_bn0")),
            Convolution(tensors, (f"{prefix}_depthwise_conv", f"{prefix}_bn1"), stride),
            Convolution(tensors, (f"{prefix}_project_conv", f"{prefix}_bn2"), relu6=False),
        )
        self.residual = residual

    def forward(self, planes: Tensor) -> Tensor:
        moved: Tensor = self.layers(planes)
        if not self.residual:
            return moved
        if self.training:
            kept = torch.rand(len(planes), 1, 1, 1) >= DROPPED
            moved = moved * kept / (1 - DROPPED)
        return planes + moved


class Upper(nn.Module):
    """The stages after the frozen ones, and the last layer."""

    def __init__(self, trunk: str, tensors: Tensors) -> None:
        super().__init__()
        blocks, self.ends, stage, channels = [], [], 0, 0
        for number, (_, stride, _, n_outputs, ends) in enumerate(_blocks(trunk)):
            if stage >= FROZEN_STAGES:
                residual = stride == 1 and channels == n_outputs
                blocks.append(Block(tensors, number, stride, residual))
                self.ends.append(ends)
            stage, channels = stage + ends, n_outputs
        self.blocks = nn.ModuleList(blocks)
        self.last = Convolution(tensors, ("_conv_head", "_bn1"))

    def forward(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        """Return (n, 1280) of the last layer and (n, s) of the ends of these stages."""
        means = []
        for block, ends in zip(self.blocks, self.ends, strict=True):
            planes = block(planes)
            if ends:
                means.append(planes.mean((2, 3)))
        return self.last(planes).mean((2, 3)), torch.cat(means, 1)
