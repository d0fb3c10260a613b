"""Activations of the image trunks, computed once and kept in the user's cache folder.

An entry is named by the bytes of the image and of the trunk's weights, so a changed image or trunk
never gets an old entry, and a renamed image gets its entry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imprompt.core.atomic_files import atomic_write
from imprompt.core.protocols import Progress
from imprompt.encoders.efficientnet import CLASSES, POOLED_DIM, Activations, EfficientNetLite
from imprompt.images.decode import open_image

_BATCH = 16


def cached_activations(
    paths: Sequence[Path], *, trunk: EfficientNetLite, cache: Path, progress: Progress
) -> Activations:
    """Return the trunk's activations for image files in order; only new images are encoded.

    Args:
        paths: image files.
        trunk: its `key` names its part of the cache.
        cache: a folder, created where it is absent.
        progress: is advanced by each image.

    Raises:
        ImageRejected: a file is not a readable image.
        StorageFull: the cache cannot be written.
    """
    edges = (POOLED_DIM, POOLED_DIM + trunk.stages_dim)
    rows = np.empty((len(paths), edges[1] + CLASSES), dtype=np.float32)
    folder = cache / "features" / trunk.key
    with progress.start(f"Encoding images ({trunk.name})", len(paths)) as task:
        for begin in range(0, len(paths), _BATCH):
            batch = paths[begin : begin + _BATCH]
            rows[begin : begin + len(batch)] = _batch_rows(batch, trunk=trunk, folder=folder)
            task.advance(len(batch))
    return Activations(*np.split(rows, edges, axis=1))


def _batch_rows(
    paths: Sequence[Path], *, trunk: EfficientNetLite, folder: Path
) -> NDArray[np.float32]:
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    entries = [folder / f"{digest}.npy" for digest in digests]
    rows = {position: np.load(entry) for position, entry in enumerate(entries) if entry.is_file()}
    new = [position for position in range(len(paths)) if position not in rows]
    if new:
        activations = trunk.activations([open_image(paths[position]) for position in new])
        new_rows = np.concatenate(
            [activations.pooled, activations.stages, activations.logits], axis=1
        )
        for position, row in zip(new, new_rows, strict=True):
            with atomic_write(entries[position]) as file:
                np.save(file, row)
            rows[position] = row
    return np.stack([rows[position] for position in range(len(paths))])
