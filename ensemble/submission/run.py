"""A whole folder of images to one submission: in fixed batches, each kept as it is finished, so that a kill costs one batch."""

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
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from imprompt.core.atomic_files import atomic_write, storage_errors
from imprompt.core.errors import BuildLocked, ConfigError, StorageFull, StoreError
from imprompt.core.progress import SILENT
from imprompt.core.protocols import Progress
from imprompt.core.values import Vectors
from imprompt.encoders.weights import file_sha256
from imprompt.ensemble.ensemble import Ensemble
from imprompt.ensemble.submission.batch_files import (
    Answerer,
    BatchDone,
    How,
    ImageBatch,
    LocalAnswerer,
    joined,
)
from imprompt.ensemble.submission.formats import DIM, check_suffix, image_order, write_submission
from imprompt.images.decode import ENOUGH_PX
from imprompt.images.image_files import find_images
from imprompt.retriever.query_embedding import MAX_BATCH_PIXELS
from imprompt.store.locking import write_lock

if TYPE_CHECKING:
    from imprompt.store.open_index import OpenIndex

BATCH_IMAGES = 32
"""Images a batch. It belongs to the result: another size changes last bits."""

_DIGEST_BYTES = 32
_LIBRARIES = ("clip-interrogator", "open_clip_torch", "timm", "torch", "transformers")
_ROW_BYTES = DIM * 4


@dataclass(frozen=True, slots=True)
class SubmitReport:
    """What became of a folder.

    `images` rows of 384 numbers were written. `failed` are (id, reason) of images that cannot be
    read and `missing` ids of the sample without an image: both got the mean of the corpus.
    `surplus` ids are not in the sample and were left out. `exact` images carried their prompt.
    `resumed` images were done by an earlier run that was broken off.
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
class _Submission:
    """The images that are looked at, by rising id, and the ids that are written, in their order."""

    paths: list[Path]
    order: list[str]
    missing: tuple[str, ...]
    surplus: tuple[str, ...]
    ignore_metadata: bool


def submit(
    folder: Path,
    out: Path,
    *,
    ensemble: Ensemble,
    depends_on: dict[str, Any],
    sample: Path | None = None,
    prompts_out: Path | None = None,
    ignore_metadata: bool = False,
    answerer: Answerer | None = None,
    progress: Progress = SILENT,
) -> SubmitReport:
    """Answer every image below `folder` and write the submission `out`, whole or not at all.

    Finished batches are kept in a hidden folder beside `out` until it is written: the same call
    goes on from there, and on one machine ends with the same bytes as an unbroken run.

    Args:
        folder: of images; an image's id is its file's stem.
        out: .csv, .parquet or .npz; see `imprompt.ensemble.submission.formats.write_submission`.
        depends_on: what the result depends on beside the images; see the function `depends_on`.
        sample: a sample submission that gives ids and their order; without one they are sorted.
        prompts_out: a CSV file for the texts of the answers.
        ignore_metadata: estimate also where a file carries its prompt.
        answerer: answers the batches; None lets the ensemble do it here. A run may go on with
            another.

    Raises:
        ConfigError: no images, two of one stem, none of the sample's ids, or a suffix that names no
            format.
        SubmissionRejected: the sample is not one.
        MemberUnavailable: a member failed.
        BuildLocked: another process is at this very job.
        StorageFull: the disk is full or may not be written.
    """
    began = time.monotonic()
    check_suffix(out)
    job = _job(folder, sample, ignore_metadata=ignore_metadata)
    plan = _plan(job, depends_on)
    work = out.with_name(f".{out.name}.{plan[:16]}")
    _sweep(out, keep=work)
    with write_lock(work):
        resumed = _answer(work, job, answerer or LocalAnswerer(ensemble), progress=progress)
        words, rows = _gather(work, job, ensemble)
        if prompts_out is not None:
            _write_prompts(prompts_out, words, job)
        write_submission(out, job.order, rows)
        del rows  # its file goes now
        shutil.rmtree(work, ignore_errors=True)
    return SubmitReport(
        out=str(out),
        images=len(job.order),
        exact=sum(how == "exact" for how in words.how.values()),
        failed=tuple(words.errors.items()),
        missing=job.missing,
        surplus=job.surplus,
        resumed=resumed,
        seconds=round(time.monotonic() - began, 3),
    )


def depends_on(version: OpenIndex, ensemble: Ensemble) -> dict[str, Any]:
    """What a submission depends on beside the images: index, encoders, blend_config, who contributions, and the bytes of their models.

    Raises:
        WeightsMissing: a model's file is gone.
    """
    from imprompt.encoders.lite import lite_spec

    manifest = version.manifest
    return {
        "version": manifest.version,
        "rows_digest": manifest.rows_digest,
        "encoders": manifest.encoders,
        "embedded": lite_spec(),
        "blend": ensemble.blend_config,
        "shares": ensemble.shares,
        "models": {
            name: {path.name: file_sha256(path) for path in paths}
            for name, paths in ensemble.files.items()
        },
        "libraries": _versions(),
    }


def _versions() -> dict[str, str]:
    """Of the libraries that members compute with; the interrogator's phrase lists come with one of them."""
    found = {}
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@dataclass(frozen=True, slots=True)
class _PromptLines:
    """What is said of each image, by id: its prompt ("" where it failed), how that was found, and the errors."""

    prompts: dict[str, str]
    how: dict[str, How]
    errors: dict[str, str]


def _job(folder: Path, sample: Path | None, *, ignore_metadata: bool) -> _Submission:
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder.", hint="Name the folder of the images.")
    found: dict[str, Path] = {}
    for path in find_images([folder]):
        if path.stem in found:
            raise ConfigError(
                f"{found[path.stem]} and {path} have the same id, {path.stem}.",
                hint="Rename one of them, or move it away.",
            )
        found[path.stem] = path
    if not found:
        raise ConfigError(f"{folder} holds no images.")
    if broken := next(
        (stem for stem in found if stem != stem.encode("utf-8", "replace").decode("utf-8")), None
    ):
        raise ConfigError(
            f"The name {broken!r} is not valid Unicode, so that no row can be named after it.",
            hint="Rename it.",
        )
    order = sorted(found) if sample is None else image_order(sample)
    wanted = set(order)
    if not wanted & found.keys():
        raise ConfigError(
            f"{folder} has none of the {len(order):,} images of {sample}; it has {min(found)}, the sample {order[0]}.",
            hint="Name the sample that belongs to these images.",
        )
    return _Submission(
        paths=[found[stem] for stem in sorted(found.keys() & wanted)],
        order=order,
        missing=tuple(name for name in order if name not in found),
        surplus=tuple(sorted(found.keys() - wanted)),
        ignore_metadata=ignore_metadata,
    )


def _plan(job: _Submission, depends_on: dict[str, Any]) -> str:
    """sha256 of all that the result depends on; it names the folder that a broken run is resumed from."""
    plan = {
        "batch": [BATCH_IMAGES, MAX_BATCH_PIXELS, ENOUGH_PX],
        "ignore_metadata": job.ignore_metadata,
        "images": [(str(path), *stamp(path)) for path in job.paths],
        "depends_on": depends_on,
    }
    return hashlib.sha256(msgspec.json.encode(plan, order="sorted")).hexdigest()


def stamp(path: Path) -> tuple[int, int]:
    """Length and time of a file: whoever changes an image between two runs gets it answered again."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0)  # its reading will say why
    return (status.st_size, status.st_mtime_ns)


def _n_batches(job: _Submission) -> int:
    return -(-len(job.paths) // BATCH_IMAGES)


def _batch_paths(job: _Submission, number: int) -> list[Path]:
    return job.paths[number * BATCH_IMAGES : (number + 1) * BATCH_IMAGES]


def _answer(work: Path, job: _Submission, answerer: Answerer, *, progress: Progress) -> int:
    """Finish all batches; the number of images that an earlier run had finished."""
    wanted = [
        _batch(job, number)
        for number in range(_n_batches(job))
        if _whole_batch(work, number) is None
    ]
    resumed = len(job.paths) - sum(len(batch.paths) for batch in wanted)
    with progress.start("Answering images", len(job.paths)) as task:
        task.advance(resumed)
        parts: defaultdict[int, list[BatchDone]] = defaultdict(list)
        for batch, part in answerer.answers(wanted) if wanted else ():
            parts[batch.number].append(part)
            task.advance(len(part.how))
            if sum(len(part.how) for part in parts[batch.number]) == len(batch.paths):
                _write_batch(work, batch.number, parts.pop(batch.number))
    return resumed


def _batch(job: _Submission, number: int) -> ImageBatch:
    return ImageBatch(number, tuple(_batch_paths(job, number)), job.ignore_metadata)


def _batch_file(work: Path, number: int) -> Path:
    return work / f"{number:06d}.batch"


def _write_batch(work: Path, number: int, parts: Sequence[BatchDone]) -> None:
    """Keep a finished batch: sha256 of what follows, then the batch."""
    content = msgspec.msgpack.encode(joined(parts))
    with atomic_write(_batch_file(work, number)) as file:
        file.write(hashlib.sha256(content).digest() + content)


def _whole_batch(work: Path, number: int) -> BatchDone | None:
    """A finished batch; None where it is not there or damaged."""
    path = _batch_file(work, number)
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content[_DIGEST_BYTES:]).digest() != content[:_DIGEST_BYTES]:
        return None
    return msgspec.msgpack.decode(content[_DIGEST_BYTES:], type=BatchDone)


def _gather(work: Path, job: _Submission, ensemble: Ensemble) -> tuple[_PromptLines, Vectors]:
    """All finished batches: the words by id, and the rows in the order of ids as a map of a file, not in memory."""
    words = _PromptLines({}, {}, {})
    place_of = {name: place for place, name in enumerate(job.order)}
    path = work / "rows.f32"
    with storage_errors(path), path.open("wb") as file:
        for number in range(_n_batches(job)):
            batch = _whole_batch(work, number)
            if batch is None:
                raise StoreError(
                    f"{_batch_file(work, number)} was damaged after it was written.",
                    hint="Run the command again.",
                )
            ids = [found.stem for found in _batch_paths(job, number)]
            words.prompts.update(zip(ids, batch.prompts, strict=True))
            words.how.update(zip(ids, batch.how, strict=True))
            words.errors.update((ids[place], reason) for place, reason in batch.errors.items())
            for place, name in enumerate(ids):
                file.seek(place_of[name] * _ROW_BYTES)
                file.write(batch.vectors[place * _ROW_BYTES : (place + 1) * _ROW_BYTES])
        for name in (*job.missing, *words.errors):
            file.seek(place_of[name] * _ROW_BYTES)
            file.write(ensemble.neighbourhood.mean.tobytes())
    return words, np.memmap(path, dtype=np.float32, mode="r", shape=(len(job.order), DIM))


def _write_prompts(path: Path, words: _PromptLines, job: _Submission) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["imgId", "prompt", "how"])
    table.writerows(
        (name, words.prompts.get(name, ""), words.how.get(name, "missing")) for name in job.order
    )
    with atomic_write(path) as file:
        file.write(text.getvalue().encode("utf-8", "replace"))


def _sweep(out: Path, *, keep: Path) -> None:
    """Remove what broken runs of other plans have left beside `out`, unless one of them is still running."""
    pattern = re.compile(re.escape(f".{out.name}.") + "[0-9a-f]{16}")
    for folder in out.parent.glob(f".{glob.escape(out.name)}.*"):
        if folder != keep and folder.is_dir() and pattern.fullmatch(folder.name):
            with suppress(BuildLocked, StorageFull), write_lock(folder):
                shutil.rmtree(folder, ignore_errors=True)
