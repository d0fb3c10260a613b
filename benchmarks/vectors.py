"""Vectors for the benchmarks of the index: real ones by `lite`, then a mixture fitted to them.

    python benchmarks/vectors.py --index INDEX --work FOLDER --rows 100000 1000000

INDEX is an index of real prompts with `lite`. 500 of its rows are held out as the queries of every
size. The others come first, in random order. Each further row is a real row plus noise of the real
rows' covariance, times a factor uniform from .3 to .9, scaled to length 1. With this range the
cosines of the queries to their nearest rows are those of real rows or a little lower, so that they
are not easier to find; `prompts.json` compares them.

Every size begins with the rows of the smaller ones, so all share their files: float16 shards of
4,096 rows, as in a build.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from imprompt.core.values import Vectors
from imprompt.indexer.build_plan import DEFAULT_SHARD_ROWS
from imprompt.store.index_version import open_version
from imprompt.store.manifest import ShardRecord
from imprompt.store.shards import ShardedVectors, write_shard

QUESTIONS = 500
K = 10
NOISE = (0.3, 0.9)
_DRAWN_AT_ONCE = 16 * DEFAULT_SHARD_ROWS
_COMPARED_ROWS = 50_000


def draw(real: Vectors, rows: int) -> Iterator[Vectors]:
    """Yield blocks of up to (65,536, dim) float32 unit rows: real rows first, then the mixture."""
    rng = np.random.default_rng(0)
    factor = _factor(real)
    for start in range(0, rows, _DRAWN_AT_ONCE):
        block = around(real, _DRAWN_AT_ONCE, factor, rng)
        own = max(min(len(real) - start, len(block)), 0)
        block[:own] = real[start : start + own]
        yield block[: rows - start]


def around(real: Vectors, rows: int, factor: Vectors, rng: np.random.Generator) -> Vectors:
    """Return rows of the mixture; `factor` is the Cholesky factor of the real rows' covariance."""
    scale = rng.uniform(*NOISE, (rows, 1)).astype(np.float32)
    noise = rng.standard_normal((rows, real.shape[1]), dtype=np.float32) @ factor.T
    found: Vectors = real[rng.integers(0, len(real), rows)] + scale * noise
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def prepare(index: Path, work: Path, sizes: Sequence[int]) -> None:
    """Write shards, queries and, for every size, the exact ten nearest rows of every query.

    Existing files are kept.
    """
    sizes = sorted(size for size in sizes if not (work / str(size) / "exact.npy").exists())
    if not sizes:
        return
    real, questions = _real(index)
    needed = 2.2 * sizes[-1] * real.shape[1]
    if shutil.disk_usage(work).free < needed:
        sys.exit(f"{work} has less than the {needed / 1e9:.1f} GB free that this takes")
    np.save(work / "questions.npy", questions)
    (work / "prompts.json").write_text(json.dumps(_compared(real, questions), indent=1), "utf-8")
    records: list[ShardRecord] = []
    best = _Best(questions)
    for start, block in zip(
        range(0, sizes[-1], _DRAWN_AT_ONCE), draw(real, sizes[-1]), strict=True
    ):
        for size in [size for size in sizes if start < size <= start + len(block)]:
            _write_size(
                work,
                size,
                records,
                block[: size - start],
                best.with_rows(start, block[: size - start]),
            )
        for begin in range(0, len(block) - DEFAULT_SHARD_ROWS + 1, DEFAULT_SHARD_ROWS):
            file = f"vectors/{len(records):05d}.npy"
            records.append(
                write_shard(
                    work,
                    file,
                    block[begin : begin + DEFAULT_SHARD_ROWS],
                    provenance={"made": "drawn"},
                )
            )
        best = best.with_rows(start, block)


def vectors_of(work: Path, rows: int) -> ShardedVectors:
    """Return the first `rows` vectors."""
    return ShardedVectors(work, records_of(work, rows))


def records_of(work: Path, rows: int) -> list[ShardRecord]:
    """Return the shards of the first `rows` vectors."""
    return msgspec.json.decode(
        (work / str(rows) / "shards.json").read_bytes(), type=list[ShardRecord]
    )


def drawn_questions(work: Path, rows: int) -> tuple[Vectors, np.ndarray]:
    """Return 500 queries drawn like the mixture, and their exact ten nearest rows; cached."""
    paths = work / str(rows) / "drawn.npy", work / str(rows) / "drawn-exact.npy"
    if not paths[1].exists():
        vectors = vectors_of(work, rows)
        real = vectors.block(0, json.loads((work / "prompts.json").read_text("utf-8"))["real_rows"])
        best = _Best(around(real, QUESTIONS, _factor(real), np.random.default_rng(3)))
        np.save(paths[0], best.questions)
        for start, block in vectors.blocks(_DRAWN_AT_ONCE):
            best = best.with_rows(start, block)
        np.save(paths[1], best.ids)
    return np.load(paths[0]), np.load(paths[1])


def _factor(real: Vectors) -> Vectors:
    """Return the Cholesky factor of the rows' covariance."""
    return np.linalg.cholesky(np.cov(real[::2].T) + 1e-8 * np.eye(real.shape[1])).astype(np.float32)


class _Best:
    """The ten nearest rows of every query among those seen so far."""

    def __init__(
        self, questions: Vectors, ids: np.ndarray | None = None, scores: np.ndarray | None = None
    ) -> None:
        self.questions = questions
        self.ids = np.full((len(questions), K), -1, dtype=np.int64) if ids is None else ids
        self._scores = (
            np.full((len(questions), K), -np.inf, dtype=np.float32) if scores is None else scores
        )

    def with_rows(self, start: int, block: Vectors) -> _Best:
        """Add rows as they are stored; the first has the id `start`."""
        rows = block.astype(np.float16).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        scores = np.concatenate([self._scores, self.questions @ rows.T], axis=1)
        ids = np.concatenate(
            [
                self.ids,
                np.broadcast_to(np.arange(start, start + len(rows)), (len(scores), len(rows))),
            ],
            axis=1,
        )
        nearest = np.argpartition(-scores, K, axis=1)[:, :K]
        return _Best(
            self.questions,
            np.take_along_axis(ids, nearest, 1),
            np.take_along_axis(scores, nearest, 1),
        )


def _write_size(
    work: Path, size: int, before: list[ShardRecord], block: Vectors, best: _Best
) -> None:
    """Write the list of this size's shards: those that all sizes share, and a last one."""
    whole = len(block) // DEFAULT_SHARD_ROWS
    records = list(before)
    for number in range(whole):
        rows = block[number * DEFAULT_SHARD_ROWS : (number + 1) * DEFAULT_SHARD_ROWS]
        records.append(
            write_shard(work, f"vectors/{len(records):05d}.npy", rows, provenance={"made": "drawn"})
        )
    if len(block) > whole * DEFAULT_SHARD_ROWS:
        rows = block[whole * DEFAULT_SHARD_ROWS :]
        records.append(write_shard(work, f"{size}/last.npy", rows, provenance={"made": "drawn"}))
    (work / str(size)).mkdir(exist_ok=True)
    (work / str(size) / "shards.json").write_bytes(msgspec.json.encode(records))
    np.save(work / str(size) / "exact.npy", best.ids)


def _real(index: Path) -> tuple[Vectors, Vectors]:
    """Return (rows, queries): the vectors of the index in a random order."""
    with open_version(index) as version:
        vectors = version.vectors(version.space)
        found = vectors.rows(np.random.default_rng(1).permutation(len(vectors)))
    return found[QUESTIONS:], found[:QUESTIONS]


def _compared(real: Vectors, questions: Vectors) -> dict[str, object]:
    """Return quartiles of the cosines of queries to their nearest rows, real and mixture."""
    n = min(_COMPARED_ROWS, len(real))
    mixture = around(real, n, _factor(real), np.random.default_rng(2))
    found: dict[str, object] = {
        "real_rows": len(real),
        "questions": len(questions),
        "compared_rows": n,
    }
    for name, rows in (("real", real[:n]), ("mixture", mixture)):
        nearest = -np.sort(-(questions @ rows.T), axis=1)
        quartiles = {
            str(k): np.percentile(nearest[:, k - 1], [25, 50, 75]).round(3).tolist() for k in (1, K)
        }
        found[name] = quartiles
    return found


def main() -> None:
    """Parse, prepare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument(
        "--work", type=Path, required=True, help="a folder for the vectors; they are kept"
    )
    parser.add_argument("--rows", type=int, nargs="+", required=True)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    prepare(args.index, args.work, args.rows)


if __name__ == "__main__":
    main()
