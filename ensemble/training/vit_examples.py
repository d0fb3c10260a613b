"""The pairs of a training: targets in MiniLM space, and a held-out part to choose the epoch by."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from imprompt.core.errors import CorpusError
from imprompt.core.progress import SILENT
from imprompt.core.protocols import Progress, TextEncoder
from imprompt.core.splits import group_folds, similarity_groups
from imprompt.core.values import Ids, Vectors, unit_rows
from imprompt.ensemble.training.head_training import make_examples
from imprompt.ensemble.training.pairs import Pair, read_pairs


@dataclass(frozen=True, slots=True)
class VitExamples:
    """n pairs as arrays.

    `targets` (n, 384) are the unit rows of the mean of each pair's texts, `prompts` (n, 384) those
    of its prompt, `groups` (n,) those of similar prompts. `train` and `held_out` are row numbers,
    and no group is in both. `digest` identifies the texts, and the images by name, size and time.
    """

    paths: list[Path]
    targets: Vectors
    prompts: Vectors
    groups: Ids
    train: Ids
    held_out: Ids
    digest: str


def load_examples(
    path: Path, *, minilm: TextEncoder, folds: int, seed: int, progress: Progress = SILENT
) -> VitExamples:
    """Return the pairs of a Parquet file, split by groups of prompts with cosines of 0.7 or more.

    Raises:
        CorpusError: they cannot be read, an image is missing, or the prompts form fewer groups
            than folds.
    """
    rows = read_pairs(path)
    no_features = np.zeros((len(rows), 0), np.float32)
    examples = make_examples(rows, no_features, minilm=minilm, progress=progress)
    groups = similarity_groups(examples.prompts)
    try:
        train, held_out = next(group_folds(groups, folds, seed=seed))
    except ValueError as error:
        raise CorpusError(
            f"{path} has {len(np.unique(groups))} groups of similar prompts; "
            f"a training needs at least {folds}.",
            path=path,
            hint="Add pairs with different prompts.",
        ) from error
    return VitExamples(
        paths=[row.image for row in rows],
        targets=unit_rows(examples.targets, role="MiniLM"),
        prompts=examples.prompts,
        groups=groups,
        train=train,
        held_out=held_out,
        digest=_digest(rows),
    )


def _digest(rows: Sequence[Pair]) -> str:
    facts = []
    for row in rows:
        status = row.image.stat()
        facts.append((str(row.image.absolute()), status.st_size, status.st_mtime_ns, row.texts))
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()
