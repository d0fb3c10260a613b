"""The pairs as a training takes them: targets in MiniLM space, and a part kept apart to choose the best epoch by."""

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
    """n pairs: `paths` of images, `targets` (n, 384) unit rows of the mean of each pair's texts, `prompts` (n, 384) of its prompt.

    `groups` (n,) of like prompts; `train` and `held_out` are row numbers, and no group stands on
    both sides. `digest` names the pairs: texts, names, sizes and times of the images.
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
    """The pairs of a Parquet file, split by groups of prompts whose MiniLM cosine is .7 or more.

    Raises:
        CorpusError: they cannot be read, an image is not there, or the prompts make fewer groups
            than folds.
    """
    rows = read_pairs(path)
    made = make_examples(
        rows, np.zeros((len(rows), 0), np.float32), minilm=minilm, progress=progress
    )
    groups = similarity_groups(made.prompts)
    try:
        train, held_out = next(group_folds(groups, folds, seed=seed))
    except ValueError as error:
        raise CorpusError(
            f"{path} has {len(np.unique(groups))} groups of like prompts; a training takes at least {folds}.",
            path=path,
            hint="Bring more pairs with different prompts.",
        ) from error
    return VitExamples(
        paths=[row.image for row in rows],
        targets=unit_rows(made.targets, role="MiniLM"),
        prompts=made.prompts,
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
