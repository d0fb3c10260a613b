"""Training of the head of `lite`: pairs in, one small file out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from imprompt.core.errors import CorpusError
from imprompt.core.metrics import row_cosines
from imprompt.core.progress import SILENT
from imprompt.core.protocols import Progress, TextEncoder
from imprompt.core.settings import settings
from imprompt.encoders.efficientnet import Activations
from imprompt.encoders.lite import HEAD_PATH, backbone_digests, load_trunks
from imprompt.encoders.lite_head import LiteHead, features, read_head, write_head
from imprompt.encoders.minilm import load_minilm
from imprompt.ensemble.ridge import Matrix
from imprompt.ensemble.training.activation_cache import cached_activations
from imprompt.ensemble.training.head_regression import (
    SETTINGS,
    FittedMaps,
    HeadExamples,
    class_means,
    fit_maps,
    integer_codes,
)
from imprompt.ensemble.training.pairs import Pair, read_pairs
from imprompt.ensemble.training.tag_words import tags_held

MIN_PAIRS = 20
_GENERATED = "generated"


@dataclass(frozen=True, slots=True)
class TrainReport:
    """The outcome of a training; `cosine_seen` is the mean cosine on the pairs themselves."""

    pairs: int
    cosine_seen: float
    seconds: float
    out: str

    def rows(self) -> list[tuple[str, str]]:
        """Return label and value of each fact, for a table."""
        return [
            ("pairs", f"{self.pairs:,}"),
            (
                "mean cosine on the pairs themselves",
                f"{self.cosine_seen:.3f} (lower on unseen texts: docs/model-card.md)",
            ),
            ("seconds", f"{self.seconds:.0f}"),
            ("head", self.out),
        ]


def train_head(
    files: Sequence[Path], out: Path, *, cache: Path | None = None, progress: Progress | None = None
) -> TrainReport:
    """Train a head on the pairs of Parquet files and write it to `out`.

    The constants, class names and mean of prompts, are those of the head that is shipped, so both
    share one index space. Features of images are kept in `cache` (by default the user's cache
    folder), and a second training encodes no image again.

    Raises:
        CorpusError: the pairs cannot be read, an image is missing, or there are fewer than 20.
        ImageRejected: an image cannot be decoded.
        WeightsMissing, WeightsRejected: a backbone is missing or damaged.
        StorageFull: `out` or the cache cannot be written.
    """
    start = time.monotonic()
    progress = progress or SILENT
    rows = [row for file in files for row in read_pairs(file)]
    if len(rows) < MIN_PAIRS:
        names = ", ".join(map(str, files))
        raise CorpusError(
            f"{names}: {len(rows)} pairs; a head needs at least {MIN_PAIRS}.", path=files[0]
        )
    constants = read_head(HEAD_PATH)
    seen = activations(rows, cache=cache or settings().cache, progress=progress)
    examples = make_examples(
        rows, features(seen, constants.class_vectors), minilm=load_minilm(), progress=progress
    )
    maps = fit_maps(examples, prompt_mean=constants.prompt_mean, main_kind=main_kind(rows))
    head = make_head(maps, constants=constants, training=_facts(rows))
    write_head(out, head)
    cosine = float(row_cosines(head.outputs(seen), examples.prompts).mean())
    return TrainReport(
        pairs=len(rows), cosine_seen=cosine, seconds=time.monotonic() - start, out=str(out)
    )


def activations(rows: Sequence[Pair], *, cache: Path, progress: Progress) -> dict[str, Activations]:
    """Return each trunk's activations for the images of the pairs, cached."""
    images = [row.image for row in rows]
    return {
        name: cached_activations(images, trunk=trunk, cache=cache, progress=progress)
        for name, trunk in load_trunks().items()
    }


def make_examples(
    rows: Sequence[Pair], inputs: Matrix, *, minilm: TextEncoder, progress: Progress
) -> HeadExamples:
    """Return the pairs with their texts encoded; all texts of a pair count alike in its target."""
    texts = [text for row in rows for text in row.texts]
    owners = np.repeat(np.arange(len(rows)), [len(row.texts) for row in rows])
    with progress.start("Encoding texts", len(texts)) as task:
        vectors = minilm.encode(texts)
        task.advance(len(texts))
    return HeadExamples(
        features=inputs,
        prompts=vectors[np.searchsorted(owners, np.arange(len(rows)))],
        targets=class_means(vectors, owners),
        kinds=integer_codes([row.kind for row in rows]),
        sources=integer_codes([row.source for row in rows]),
        tags=tags_held([row.texts for row in rows]),
    )


def main_kind(rows: Sequence[Pair]) -> int:
    """Return the code of the kind whose wording the output takes: generated, or the commonest."""
    kinds = [row.kind for row in rows]
    kind = _GENERATED if _GENERATED in kinds else Counter(kinds).most_common(1)[0][0]
    return sorted(set(kinds)).index(kind)


def make_head(fitted: FittedMaps, *, constants: LiteHead, training: dict[str, str]) -> LiteHead:
    """Return a head with the fitted maps and the constants of another head."""
    maps = {field.name: getattr(fitted, field.name) for field in fields(fitted)}
    return replace(constants, **maps, weights_sha256=backbone_digests(), training=training)


def _facts(rows: Sequence[Pair]) -> dict[str, str]:
    counts = {
        "pairs": len(rows),
        "different_prompts": len({row.texts[0] for row in rows}),
        "generated": sum(row.kind == _GENERATED for row in rows),
        "sources": len({row.source for row in rows}),
    }
    return {name: str(count) for name, count in counts.items()} | SETTINGS
