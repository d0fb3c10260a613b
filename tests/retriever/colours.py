"""An encoder whose texts and pictures meet by colour, and an index of prompts about colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from imprompt.core.values import EncoderSpec, Vectors, prompt_key, unit_rows
from imprompt.store import layout
from imprompt.store.check_queries import index_space
from imprompt.store.locking import write_lock
from imprompt.store.manifest import CorpusInfo, Manifest
from imprompt.store.prompts import DuckPrompts
from imprompt.store.publish import publish
from imprompt.store.shards import ShardedVectors, write_row_sums, write_shard
from imprompt.store.staged_prompts import CleanPrompt, CorpusState, StagedPrompts

AXES = {"red": 0, "green": 1, "blue": 2, "unred": 0}
PROMPTS = (
    "red",
    "red and green",
    "green",
    "green and blue",
    "blue",
    "blue and red",
    "red green blue",
    "red red green",
)
SPEC = EncoderSpec("colours", "colour-space", 4, 77)


class ColourTexts:
    """Counts colour words, "unred" against red; the fourth axis keeps every row from being zero."""

    def encode(self, items: Sequence[str]) -> Vectors:
        rows = np.full((len(items), 4), 1e-3)
        for row, text in zip(rows, items, strict=True):
            for word in text.split():
                if word in AXES:
                    row[AXES[word]] += -1 if word.startswith("un") else 1
            if "unred" in text.split():
                row[:] = (-1, 0, 0, 0)
        return unit_rows(rows)

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        return np.array([len(text.split()) for text in texts], dtype=np.int64)


@dataclass
class ColourPictures:
    """The mean colour of a picture; remembers how many came at once."""

    batches: list[int] = field(default_factory=list)

    def encode(self, items: Sequence[Image]) -> Vectors:
        self.batches.append(len(items))
        means = [
            np.asarray(picture, dtype=np.float32).reshape(-1, 3).mean(axis=0) for picture in items
        ]
        return unit_rows(np.array([[*mean, 0] for mean in means]).reshape(-1, 4))


@dataclass
class ColourPair:
    """Satisfies `imprompt.core.protocols.DualEncoder`."""

    spec: EncoderSpec = SPEC
    texts: ColourTexts = field(default_factory=ColourTexts)
    images: ColourPictures = field(default_factory=ColourPictures)


def build_colours(root: Path) -> Manifest:
    """A published index of `PROMPTS`, made by the store's own functions."""
    plan_sha256 = "0" * 64
    staging = layout.staging_folder(root, plan_sha256)
    with write_lock(root):
        with StagedPrompts(staging) as staged:
            rows = [
                CleanPrompt(prompt_key(text), text, text, "colours.txt", str(i))
                for i, text in enumerate(PROMPTS, 1)
            ]
            staged.add(rows, corpus=0, state=CorpusState(len(rows), finished=True))
            staged.number()
        shards = [
            write_shard(
                staging,
                layout.shard_file(SPEC.space, 0),
                ColourTexts().encode(PROMPTS),
                provenance={},
            )
        ]
        sums_file = layout.row_sums_file(SPEC.space)
        write_row_sums(staging, sums_file, ShardedVectors(staging, shards))
        info, check_queries = index_space(staging, SPEC.space, shards)
        with DuckPrompts(staging / layout.PROMPTS) as prompts:
            digest = prompts.digest()
        manifest = Manifest(
            imprompt="0",
            plan_sha256=plan_sha256,
            plan={},
            rows=len(PROMPTS),
            rows_digest=digest,
            corpus=[CorpusInfo("colours.txt", "0", synthetic=True), CorpusInfo("real.txt", "1")],
            funnel={},
            encoders=[SPEC],
            shards={SPEC.space: shards},
            indexes={SPEC.space: info},
            check_queries={SPEC.space: check_queries},
            row_sums={SPEC.space: layout.row_sums_file(SPEC.space)},
        )
        return publish(root, staging, manifest)
