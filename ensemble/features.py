"""What an image trunk sees in the images of the pairs, computed once and kept in the user's cache folder.

An entry is named by the bytes of the image and of the trunk's weights, so a changed image or trunk is never answered from an
old entry, and an image that is met again under another name is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.files import atomic_write
from core.protocols import Progress
from encoders.efficientnet import CLASSES, POOLED_DIM, Activations, EfficientNetLite
from images.decode import open_image

_BATCH = 16


def cached_activations(paths: Sequence[Path], *, trunk: EfficientNetLite, cache: Path, progress: Progress) -> Activations:
    """The trunk's activations for image files, in the order given; only images not met before are encoded.

    Args:
        paths: image files.
        trunk: the trunk; its `key` names its part of the cache.
        cache: a folder that is made where it is absent.
        progress: told about each image.

    Raises:
        ImageRejected: a file is no image that can be read.
        StorageFull: the cache cannot be written.
    """
    rows = np.empty((len(paths), POOLED_DIM + CLASSES), dtype=np.float32)
    with progress.start("Looking at images", len(paths)) as task:
        for begin in range(0, len(paths), _BATCH):
            batch = paths[begin : begin + _BATCH]
            rows[begin : begin + len(batch)] = _batch_rows(batch, trunk=trunk, folder=cache / "features" / trunk.key)
            task.advance(len(batch))
    return Activations(pooled=rows[:, :POOLED_DIM], logits=rows[:, POOLED_DIM:])


def _batch_rows(paths: Sequence[Path], *, trunk: EfficientNetLite, folder: Path) -> NDArray[np.float32]:
    contents = [path.read_bytes() for path in paths]
    entries = [folder / f"{hashlib.sha256(content).hexdigest()}.npy" for content in contents]
    rows = [np.load(entry) if entry.is_file() else None for entry in entries]
    new = [position for position, row in enumerate(rows) if row is None]
    if new:
        seen = trunk.activations([open_image(contents[position]) for position in new])
        for position, row in zip(new, np.concatenate([seen.pooled, seen.logits], axis=1), strict=True):
            with atomic_write(entries[position]) as file:
                np.save(file, row)
            rows[position] = row
    return np.stack([row for row in rows if row is not None])
