"""Vectors of a pack in one byte a value: half as long, and a little less exact.

A row is scaled so that its largest magnitude is 127, and rounded. What is restored has length 1
again: the integers divided by the root of the sum of their squares, rounded to float16. Sum and
root are exact or correctly rounded, so every machine restores the same bytes, and rounding restored
rows again changes nothing.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from imprompt.core.metrics import group_bootstrap
from imprompt.core.values import Hits
from imprompt.store.exact_index import ExactIndex
from imprompt.store.manifest import Manifest, ShardRecord
from imprompt.store.shards import CODE, ShardedVectors

INT8 = np.dtype("|i1")
QUANTIZED = "quantized"
"""The key in a shard's provenance for the `Rounding` of its vectors."""

_LARGEST = 127
_MEASURED_ROWS = 256
_K = 10
_MOST_DEPTH = 32


class DamagedRows(Exception):
    """Bytes are not the file of int8 rows that they should be; the text is a phrase."""


class Rounding(msgspec.Struct, frozen=True):
    """What rounding cost, by `n` stored prompts: against the vectors before.

    `recall_at_10` is the share of their ten nearest others that are still among the ten nearest,
    `interval` the 95 % interval of that, and `top_1` the share whose nearest other is the same.
    """

    kind: Literal["int8"]
    n: int
    recall_at_10: float
    interval: tuple[float, float]
    top_1: float

    def __str__(self) -> str:
        return (
            f"rounded to {self.kind} in a pack: recall@10 {self.recall_at_10:.4f} "
            f"({self.interval[0]:.4f} to {self.interval[1]:.4f}), top-1 {self.top_1:.4f} against "
            f"the vectors before, by {self.n} stored prompts"
        )


def quantized(codes: NDArray[np.float16]) -> NDArray[np.int8]:
    """Return (n, dim) float16 rows, none of them zeros, as int8."""
    values = codes.astype(np.float64)
    rows: NDArray[np.int8] = np.rint(
        values * (_LARGEST / np.abs(values).max(axis=1, keepdims=True))
    ).astype(INT8)
    return rows


def restored(rows: NDArray[np.int8]) -> NDArray[np.float16]:
    """Return (n, dim) int8 rows, none of them zeros, as float16 rows of length 1."""
    values = rows.astype(np.float64)
    codes: NDArray[np.float16] = (values / np.sqrt(np.vecdot(values, values))[:, None]).astype(CODE)
    return codes


def int8_file(codes: NDArray[np.float16]) -> bytes:
    """Return the rows of a shard as the bytes of an int8 `.npy` file."""
    return _header(len(codes), codes.shape[1], INT8) + quantized(codes).tobytes()


def restored_file(chunks: Iterable[bytes], *, rows: int, dim: int) -> Iterator[bytes]:
    """Yield the bytes of a shard, given those that `int8_file` returned for it.

    Raises:
        DamagedRows: they are others, or a row has no length.
    """
    if dim < 1:
        raise DamagedRows("its manifest names no encoder of its space")
    expected, held, left = _header(rows, dim, INT8), b"", rows
    header_read = False
    for chunk in chunks:
        held += chunk
        if not header_read:
            if len(held) < len(expected):
                continue
            if not held.startswith(expected):
                raise DamagedRows(f"it does not hold {rows} x {dim} values of int8")
            held, header_read = held[len(expected) :], True
            yield _header(rows, dim, CODE)
        whole = len(held) // dim
        block = np.frombuffer(held, dtype=INT8, count=whole * dim).reshape(whole, dim)
        if not block.any(axis=1).all():
            raise DamagedRows("it holds a vector without a length")
        held, left = held[whole * dim :], left - whole
        yield restored(block).tobytes()
    if held or left or not header_read:
        raise DamagedRows(f"it does not hold {rows} x {dim} values of int8")


def measured_rounding(before: ShardedVectors, after: ShardedVectors, *, seed: int) -> Rounding:
    """Compare the exact neighbours of stored prompts, not counting themselves, before and after."""
    row_ids = np.random.default_rng(seed).permutation(len(before))[:_MEASURED_ROWS]
    found = [
        _others(ExactIndex(vectors).search(before.rows(row_ids), _K + 1), row_ids)
        for vectors in (before, after)
    ]
    shares = np.array(
        [
            np.isin(right[right >= 0], ids).mean() if (right >= 0).any() else 1.0
            for right, ids in zip(*found, strict=True)
        ]
    )
    estimate = group_bootstrap(
        shares, np.arange(len(shares)), rng=np.random.default_rng(seed), resamples=1000
    )
    top_1 = float((found[0][:, 0] == found[1][:, 0]).mean())
    return Rounding(
        kind="int8",
        n=len(row_ids),
        recall_at_10=round(estimate.mean, 4),
        interval=(round(estimate.low, 4), round(estimate.high, 4)),
        top_1=round(top_1, 4),
    )


def roundings_of(manifest: Manifest) -> dict[str, Rounding]:
    """Return what the provenance of a version says about rounding, by space where it says any."""
    found = {space: rounding_of(shards) for space, shards in manifest.shards.items()}
    return {space: rounding for space, rounding in found.items() if rounding is not None}


def rounding_of(shards: Sequence[ShardRecord]) -> Rounding | None:
    """Return what the provenance of some shards says about rounding; None if it says nothing.

    It may come from anybody.
    """
    for shard in shards:
        for value in _values(shard.provenance, QUANTIZED, _MOST_DEPTH):
            try:
                return msgspec.convert(value, Rounding)
            except msgspec.ValidationError:
                continue
    return None


def _values(value: Any, key: str, depth: int) -> Iterator[Any]:
    """Yield the values of a key anywhere in nested mappings and lists."""
    if depth == 0 or not isinstance(value, dict | list):
        return
    if isinstance(value, dict) and key in value:
        yield value[key]
    for part in value.values() if isinstance(value, dict) else value:
        yield from _values(part, key, depth - 1)


def _others(hits: Hits, row_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (n, 10) ids without each query's own row."""
    return np.array(
        [
            np.concatenate([ids[ids != own], [-1]])[:_K]
            for ids, own in zip(hits.ids, row_ids, strict=True)
        ]
    )


def _header(rows: int, dim: int, dtype: np.dtype[Any]) -> bytes:
    """Return the first bytes of a `.npy` file."""
    written = io.BytesIO()
    shape = np.lib.format.header_data_from_array_1_0(np.empty((0, dim), dtype=dtype))
    np.lib.format.write_array_header_1_0(written, shape | {"shape": (rows, dim)})
    return written.getvalue()
