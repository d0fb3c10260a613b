"""Training of the head of `lite`: pairs in, one small file out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.config import settings
from core.errors import ConfigError
from core.progress import Silent
from core.protocols import Progress, TextEncoder
from core.values import Vectors, unit_rows
from encoders.efficientnet import CLASSES, EfficientNetLite
from encoders.lite import TRUNK
from encoders.lite_head import LiteHead, features, write_head
from encoders.minilm import load_minilm
from encoders.weights import packaged_weights
from ensemble.features import cached_activations
from ensemble.pairs import read_pairs
from ensemble.regression import ridge

PENALTY = 6.0


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What a training did: pairs read, mean cosine of the head's outputs with the texts it was trained on, seconds, file."""

    pairs: int
    cosine_seen: float
    seconds: float
    out: str

    def rows(self) -> list[tuple[str, str]]:
        """Label and value of each fact, for a table."""
        return [
            ("pairs", f"{self.pairs:,}"),
            (
                "mean cosine on the pairs themselves",
                f"{self.cosine_seen:.3f} (on unseen texts it is lower; see docs/model-card.md)",
            ),
            ("seconds", f"{self.seconds:.0f}"),
            ("head", self.out),
        ]


def train_head(pairs: Path, out: Path, *, cache: Path | None = None, progress: Progress | None = None) -> TrainReport:
    """Train a head on the pairs of a Parquet file and write it to `out`.

    Features of images are kept in `cache` (the user's cache folder by default), so a second training sees each image once.

    Raises:
        CorpusError: the pairs cannot be read, or an image is missing.
        ImageRejected: an image cannot be decoded.
        ConfigError: timm, which names the ImageNet classes, is not installed.
        WeightsMissing, WeightsRejected: a backbone is not there.
        StorageFull: `out` or the cache cannot be written.
    """
    start = time.monotonic()
    rows = read_pairs(pairs)
    minilm = load_minilm()
    class_vectors = label_vectors(minilm)
    seen = cached_activations(
        [row.image for row in rows],
        trunk=EfficientNetLite(TRUNK),
        cache=cache or settings().cache,
        progress=progress or Silent(),
    )
    targets = minilm.encode([row.texts[0] for row in rows])
    inputs = features(seen, class_vectors)
    fitted = ridge(inputs, targets, penalty=PENALTY)
    head = LiteHead(
        class_vectors=class_vectors,
        weight=fitted.weight,
        bias=fitted.bias,
        text_mean=targets.mean(axis=0),
        weights_sha256={"text": packaged_weights("minilm").sha256, "image": packaged_weights(f"efficientnet-{TRUNK}").sha256},
        training={"pairs": str(len(rows)), "method": "ridge", "penalty": str(PENALTY)},
    )
    write_head(out, head)
    cosine = float(np.einsum("nd,nd->n", head.outputs(seen), targets).mean())
    return TrainReport(pairs=len(rows), cosine_seen=cosine, seconds=time.monotonic() - start, out=str(out))


def label_vectors(minilm: TextEncoder) -> Vectors:
    """(1000, 384) MiniLM vectors of the names of the ImageNet classes, in the order of the trunk's logits.

    Raises:
        ConfigError: timm is not installed; only training needs it.
    """
    try:
        from timm.data.imagenet_info import ImageNetInfo
    except ImportError as error:
        raise ConfigError(
            "timm is not installed; training reads the names of the classes from it.", hint="pip install timm"
        ) from error
    names = ImageNetInfo()
    return unit_rows(minilm.encode([names.index_to_description(index) for index in range(CLASSES)]))
