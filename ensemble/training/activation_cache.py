"""What the image trunks see in the images of the pairs, computed once and kept in the user's cache folder.

An entry is named by the bytes of the image and of the trunk's weights, so a changed image or trunk
is never answered from an old entry, and an image that is met again under another name is.
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
    edges = (POOLED_DIM, POOLED_DIM + trunk.stages_dim)
    rows = np.empty((len(paths), edges[1] + CLASSES), dtype=np.float32)
    with progress.start(f"Looking at images ({trunk.name})", len(paths)) as task:
        for begin in range(0, len(paths), _BATCH):
            batch = paths[begin : begin + _BATCH]
            rows[begin : begin + len(batch)] = _batch_rows(
                batch, trunk=trunk, folder=cache / "features" / trunk.key
            )
            task.advance(len(batch))
    return Activations(*np.split(rows, edges, axis=1))


def _batch_rows(
    paths: Sequence[Path], *, trunk: EfficientNetLite, folder: Path
) -> NDArray[np.float32]:
    contents = [path.read_bytes() for path in paths]
    entries = [folder / f"{hashlib.sha256(content).hexdigest()}.npy" for content in contents]
    rows = {position: np.load(entry) for position, entry in enumerate(entries) if entry.is_file()}
    new = [position for position in range(len(paths)) if position not in rows]
    if new:
        seen = trunk.activations([open_image(paths[position]) for position in new])
        for position, row in zip(
            new, np.concatenate([seen.pooled, seen.stages, seen.logits], axis=1), strict=True
        ):
            with atomic_write(entries[position]) as file:
                np.save(file, row)
            rows[position] = row
    return np.stack([rows[position] for position in range(len(paths))])
