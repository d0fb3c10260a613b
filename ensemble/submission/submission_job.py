"""A folder of images made into a submission, in batches that are kept until it is written."""

from __future__ import annotations

import csv
import glob
import hashlib
import io
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from imprompt.core.atomic_files import atomic_write, storage_errors
from imprompt.core.errors import BuildLocked, StorageFull, StoreError
from imprompt.core.progress import SILENT
from imprompt.core.protocols import Progress
from imprompt.core.values import Vectors
from imprompt.ensemble.ensemble import Ensemble
from imprompt.ensemble.submission.batch_predictions import (
    BatchPredictions,
    BatchPredictor,
    How,
    LocalPredictor,
    joined,
)
from imprompt.ensemble.submission.formats import DIM, check_suffix, write_submission
from imprompt.ensemble.submission.submission_plan import SubmissionPlan, plan_submission
from imprompt.store.locking import remove_lock, write_lock

_DIGEST_BYTES = 32
_ROW_BYTES = DIM * 4


@dataclass(frozen=True, slots=True)
class SubmitReport:
    """The outcome of a submission.

    `images` rows of 384 numbers were written. `failed` are (id, reason) of images that cannot be
    read, `missing` ids of the sample without an image: both got the mean of the corpus. `surplus`
    images are not in the sample and were left out. `exact` images carried their prompt. `resumed`
    images were predicted by an earlier, interrupted run.
    """

    out: str
    images: int
    exact: int
    failed: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    surplus: tuple[str, ...]
    resumed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Prompts:
    """Each image's prompt ("" where it failed), how it was obtained, and the errors, by id."""

    prompts: dict[str, str]
    how: dict[str, How]
    errors: dict[str, str]


def submit(
    folder: Path,
    out: Path,
    *,
    ensemble: Ensemble,
    depends_on: dict[str, Any],
    sample: Path | None = None,
    prompts_out: Path | None = None,
    ignore_metadata: bool = False,
    predictor: BatchPredictor | None = None,
    progress: Progress = SILENT,
) -> SubmitReport:
    """Predict every image below `folder` and write the submission `out`, atomically.

    Finished batches are kept in a hidden folder next to `out`, so the same call resumes after an
    interruption. On one machine it then writes the same bytes as an uninterrupted run.

    Args:
        folder: of images; an image's id is its file's stem.
        out: .csv, .parquet or .npz; see `write_submission`.
        depends_on: as `submission_plan.depends_on` returns it.
        sample: a sample submission whose ids and order are taken; without one they are sorted.
        prompts_out: a CSV file for the prompts, which are composed only if it is given.
        ignore_metadata: estimate the prompt even where a file carries it.
        predictor: predicts the batches instead of `ensemble`; may differ from run to run.

    Raises:
        ConfigError, SubmissionRejected: see `plan_submission`; or no format has that suffix.
        MemberUnavailable: a member failed.
        BuildLocked: another process makes the same submission.
        StorageFull: the disk is full or read-only.
    """
    began = time.monotonic()
    check_suffix(out)
    plan = plan_submission(
        folder, sample, ignore_metadata=ignore_metadata, prompts=prompts_out is not None
    )
    work = out.with_name(f".{out.name}.{plan.digest(depends_on)[:16]}")
    _remove_stale(out, keep=work)
    with write_lock(work):
        resumed = _predict(work, plan, predictor or LocalPredictor(ensemble), progress=progress)
        results, rows = _gather(work, plan, ensemble)
        if prompts_out is not None:
            _write_prompts(prompts_out, results, plan.ids)
        write_submission(out, plan.ids, rows)
        del rows  # a map of a file in `work`, which is removed next
        shutil.rmtree(work, ignore_errors=True)
    remove_lock(work)
    return _report(out, plan, results, resumed=resumed, seconds=time.monotonic() - began)


def _report(
    out: Path, plan: SubmissionPlan, results: _Prompts, *, resumed: int, seconds: float
) -> SubmitReport:
    return SubmitReport(
        out=str(out),
        images=len(plan.ids),
        exact=list(results.how.values()).count("exact"),
        failed=tuple(results.errors.items()),
        missing=plan.missing,
        surplus=plan.surplus,
        resumed=resumed,
        seconds=round(seconds, 3),
    )


def _predict(
    work: Path, plan: SubmissionPlan, predictor: BatchPredictor, *, progress: Progress
) -> int:
    """Finish all batches; return the number of images that an earlier run had finished."""
    pending = [batch for batch in plan.batches() if _read_batch(work, batch.number) is None]
    resumed = len(plan.paths) - sum(len(batch.paths) for batch in pending)
    with progress.start("Predicting prompts", len(plan.paths)) as task:
        task.advance(resumed)
        parts: defaultdict[int, list[BatchPredictions]] = defaultdict(list)
        for batch, part in predictor.predictions(pending) if pending else ():
            parts[batch.number].append(part)
            task.advance(len(part.how))
            if sum(len(part.how) for part in parts[batch.number]) == len(batch.paths):
                _write_batch(work, batch.number, parts.pop(batch.number))
    return resumed


def _batch_file(work: Path, number: int) -> Path:
    return work / f"{number:06d}.batch"


def _write_batch(work: Path, number: int, parts: Sequence[BatchPredictions]) -> None:
    """Write a finished batch, after its sha256."""
    content = msgspec.msgpack.encode(joined(parts))
    with atomic_write(_batch_file(work, number)) as file:
        file.write(hashlib.sha256(content).digest() + content)


def _read_batch(work: Path, number: int) -> BatchPredictions | None:
    """Return a finished batch, or None where it is absent or damaged."""
    path = _batch_file(work, number)
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content[_DIGEST_BYTES:]).digest() != content[:_DIGEST_BYTES]:
        return None
    return msgspec.msgpack.decode(content[_DIGEST_BYTES:], type=BatchPredictions)


def _gather(work: Path, plan: SubmissionPlan, ensemble: Ensemble) -> tuple[_Prompts, Vectors]:
    """Return all prompts, and the vectors in the order of ids as a map of a file, not in memory."""
    prompts: dict[str, str] = {}
    how: dict[str, How] = {}
    errors: dict[str, str] = {}
    row_of = {name: row for row, name in enumerate(plan.ids)}
    path = work / "rows.f32"
    with storage_errors(path), path.open("wb") as file:
        for batch in plan.batches():
            predictions = _read_batch(work, batch.number)
            if predictions is None:
                raise StoreError(
                    f"{_batch_file(work, batch.number)} was damaged after it was written.",
                    hint="Run the command again.",
                )
            ids = [image.stem for image in batch.paths]
            prompts.update(zip(ids, predictions.prompts, strict=True))
            how.update(zip(ids, predictions.how, strict=True))
            errors.update((ids[at], reason) for at, reason in predictions.errors.items())
            for at, name in enumerate(ids):
                file.seek(row_of[name] * _ROW_BYTES)
                file.write(predictions.vectors[at * _ROW_BYTES : (at + 1) * _ROW_BYTES])
        for name in (*plan.missing, *errors):
            file.seek(row_of[name] * _ROW_BYTES)
            file.write(ensemble.neighbourhood.mean.tobytes())
    rows = np.memmap(path, dtype=np.float32, mode="r", shape=(len(plan.ids), DIM))
    return _Prompts(prompts, how, errors), rows


def _write_prompts(path: Path, results: _Prompts, ids: Sequence[str]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["imgId", "prompt", "how"])
    table.writerows(
        (name, results.prompts.get(name, ""), results.how.get(name, "missing")) for name in ids
    )
    with atomic_write(path) as file:
        file.write(text.getvalue().encode("utf-8", "replace"))


def _remove_stale(out: Path, *, keep: Path) -> None:
    """Remove the folders of interrupted runs of other plans, unless one is still running."""
    pattern = re.compile(re.escape(f".{out.name}.") + "[0-9a-f]{16}")
    for folder in out.parent.glob(f".{glob.escape(out.name)}.*"):
        if folder != keep and folder.is_dir() and pattern.fullmatch(folder.name):
            with suppress(BuildLocked, StorageFull), write_lock(folder):
                shutil.rmtree(folder, ignore_errors=True)
            remove_lock(folder)
