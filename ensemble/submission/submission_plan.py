"""The plan of a submission: its images, its ids, and all that the result depends on."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from imprompt.core.errors import ConfigError
from imprompt.encoders.weights import file_sha256
from imprompt.ensemble.ensemble import Ensemble
from imprompt.ensemble.submission.batch_predictions import ImageBatch
from imprompt.ensemble.submission.formats import image_order
from imprompt.images.decode import ENOUGH_PX
from imprompt.images.image_files import find_images
from imprompt.retriever.query_embedding import MAX_BATCH_PIXELS

if TYPE_CHECKING:
    from imprompt.store.open_index import OpenIndex

BATCH_IMAGES = 32
"""Images in a batch. The size is part of the result: another one changes the last bits."""

# The interrogator's phrase lists come with the first of them.
_LIBRARIES = (
    "clip-interrogator",
    "onnxruntime",
    "open_clip_torch",
    "timm",
    "torch",
    "transformers",
)


@dataclass(frozen=True, slots=True)
class SubmissionPlan:
    """The images to predict, by ascending id, and the ids to write, in order.

    `missing` are ids of the sample without an image, `surplus` images that are not in the sample.
    `prompts`: compose prompts, too.
    """

    paths: list[Path]
    ids: list[str]
    missing: tuple[str, ...]
    surplus: tuple[str, ...]
    ignore_metadata: bool
    prompts: bool

    def batches(self) -> list[ImageBatch]:
        """Return the images in batches, numbered from 0."""
        starts = range(0, len(self.paths), BATCH_IMAGES)
        return [
            ImageBatch(
                number,
                tuple(self.paths[start : start + BATCH_IMAGES]),
                self.ignore_metadata,
                self.prompts,
            )
            for number, start in enumerate(starts)
        ]

    def digest(self, depends_on: dict[str, Any]) -> str:
        """Return the sha256 of all that the result depends on."""
        facts = {
            "batch": [BATCH_IMAGES, MAX_BATCH_PIXELS, ENOUGH_PX],
            "ignore_metadata": self.ignore_metadata,
            "prompts": self.prompts,
            "images": [(str(path), *stamp(path)) for path in self.paths],
            "depends_on": depends_on,
        }
        return hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()


def plan_submission(
    folder: Path, sample: Path | None, *, ignore_metadata: bool, prompts: bool
) -> SubmissionPlan:
    """Return the plan for a folder of images; without a sample, ids are sorted.

    Raises:
        ConfigError: no images, two of one stem, a stem that is not Unicode, or none of the sample's
            ids.
        SubmissionRejected: the sample is not a submission.
    """
    path_of = _images_by_stem(folder)
    ids = sorted(path_of) if sample is None else image_order(sample)
    wanted = set(ids)
    if not wanted & path_of.keys():
        raise ConfigError(
            f"{folder} has none of the {len(ids):,} images of {sample}: "
            f"it has {min(path_of)}, the sample {ids[0]}.",
            hint="Name the sample that belongs to these images.",
        )
    return SubmissionPlan(
        paths=[path_of[stem] for stem in sorted(path_of.keys() & wanted)],
        ids=ids,
        missing=tuple(name for name in ids if name not in path_of),
        surplus=tuple(sorted(path_of.keys() - wanted)),
        ignore_metadata=ignore_metadata,
        prompts=prompts,
    )


def _images_by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder.", hint="Name the folder of the images.")
    path_of: dict[str, Path] = {}
    for path in find_images([folder]):
        stem = path.stem
        if stem in path_of:
            raise ConfigError(
                f"{path_of[stem]} and {path} have the same id, {stem}.",
                hint="Rename one of them, or move it away.",
            )
        if stem != stem.encode("utf-8", "replace").decode("utf-8"):
            raise ConfigError(
                f"The name {stem!r} is not valid Unicode and cannot be an id.", hint="Rename it."
            )
        path_of[stem] = path
    if not path_of:
        raise ConfigError(f"{folder} holds no images.")
    return path_of


def depends_on(version: OpenIndex, ensemble: Ensemble) -> dict[str, Any]:
    """Return what a submission depends on besides the images, as JSON values by name.

    These are the index, the encoders, the blend, the bytes of the members' models and the libraries
    that members compute with.

    Raises:
        WeightsMissing: a model's file is gone.
    """
    from imprompt.encoders.lite import lite_spec

    manifest = version.manifest
    libraries = {}
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            libraries[name] = metadata.version(name)
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
        "libraries": libraries,
    }


def stamp(path: Path) -> tuple[int, int]:
    """Return a file's size and time, which tell whether an image changed between two runs."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0)  # reading the image will report the reason
    return (status.st_size, status.st_mtime_ns)
