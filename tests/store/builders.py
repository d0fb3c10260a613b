"""Small indexes for tests, made by the same functions that a build uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from imprompt.core.atomic_files import atomic_write
from imprompt.core.values import EncoderSpec, Parameters, Vectors, prompt_key, unit_rows
from imprompt.store import layout
from imprompt.store.check_queries import index_space
from imprompt.store.index_plan import FLAT, PART_ROWS
from imprompt.store.locking import write_lock
from imprompt.store.manifest import CorpusInfo, Manifest, ShardRecord, encode_manifest, sha256_bytes
from imprompt.store.prompts import DuckPrompts
from imprompt.store.publish import current_name, publish
from imprompt.store.shards import ShardedVectors, write_row_sums, write_shard
from imprompt.store.staged_prompts import CleanPrompt, CorpusState, StagedPrompts

SPACE = "toy"
DIM = 16


def random_vectors(rows: int, dim: int = DIM, *, seed: int = 0) -> Vectors:
    return unit_rows(np.random.default_rng(seed).standard_normal((rows, dim)))


def clean_prompt(text: str, *, key: str = "0", n: int = 1) -> CleanPrompt:
    return CleanPrompt(prompt_key(text.lower()), text, text.lower(), "toy.txt", key, n)


def write_shards(
    folder: Path, vectors: Vectors, *, space: str = SPACE, shard_rows: int = 64
) -> list[ShardRecord]:
    """All `vectors` in shards of `shard_rows`, the last one shorter."""
    starts = range(0, len(vectors), shard_rows)
    return [
        write_shard(
            folder,
            layout.shard_file(space, number),
            vectors[start : start + shard_rows],
            provenance={"backend": "toy"},
        )
        for number, start in enumerate(starts)
    ]


def stage(
    root: Path,
    *,
    rows: int = 200,
    seed: int = 0,
    factory: str = FLAT,
    part_rows: int = PART_ROWS,
    parameters: Mapping[int, Parameters] = MappingProxyType({}),
) -> tuple[Path, Manifest]:
    """A staged build of `rows` prompts, some with parameters, that only wants publishing.

    The write lock is the caller's.
    """
    plan_sha256 = f"{seed:064x}"
    staging = layout.staging_folder(root, plan_sha256)
    with StagedPrompts(staging) as staged:
        prompts = [
            replace(
                clean_prompt(f"a {i} of {seed}, Öl auf Leinwand", key=str(i)),
                parameters=parameters.get(i),
            )
            for i in range(rows)
        ]
        staged.add(prompts, corpus=0, state=CorpusState(rows, finished=True))
        staged.number()
    with atomic_write(staging / layout.PLAN) as file:
        file.write(b"{}\n")
    shards = write_shards(staging, random_vectors(rows, seed=seed))
    write_row_sums(staging, layout.row_sums_file(SPACE), ShardedVectors(staging, shards))
    info, check_queries = index_space(
        staging, SPACE, shards, factory=factory, seed=seed, part_rows=part_rows
    )
    with DuckPrompts(staging / layout.PROMPTS) as opened:
        digest = opened.digest()
    manifest = Manifest(
        imprompt="0.1.0",
        plan_sha256=plan_sha256,
        plan={"seed": seed},
        rows=rows,
        rows_digest=digest,
        corpus=[CorpusInfo("toy.txt", "0" * 64, synthetic=True)],
        funnel={"read": rows, "kept": rows},
        encoders=[EncoderSpec("toy", SPACE, DIM, 77)],
        shards={SPACE: shards},
        indexes={SPACE: info},
        check_queries={SPACE: check_queries},
        row_sums={SPACE: layout.row_sums_file(SPACE)},
        parameters=len(parameters),
    )
    return staging, manifest


def reseal(root: Path, manifest: Manifest | bytes) -> None:
    """Put another manifest into the version in service, and its sha256 into `CURRENT`."""
    name = current_name(root)
    assert name is not None
    content = manifest if isinstance(manifest, bytes) else encode_manifest(manifest)
    path = layout.version_folder(root, name) / layout.MANIFEST
    path.unlink()
    path.write_bytes(content)
    layout.current_path(root).write_text(f"{name} {sha256_bytes(content)}\n")


def build(root: Path, **named: Any) -> Manifest:
    """A published index of what `stage` takes."""
    with write_lock(root):
        staging, manifest = stage(root, **named)
        return publish(root, staging, manifest)
