"""Captions by a tagger of the wd family: tags of Danbooru, by a network in ONNX.

The layout is that of SmilingWolf's repositories: model.onnx takes pictures in BGR, 0 to 255, with
the channels last, and gives a probability for each row of selected_tags.csv. Pictures are prepared
and tags are chosen as in the author's own demonstration, the Space SmilingWolf/wd-tagger.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imprompt.core.errors import WeightsMissing, WeightsRejected
from imprompt.core.hub.fetch import Announce, fetch_all, fetch_choice
from imprompt.core.hub.hub_files import HubFile, Wanted, cached_file, wanted
from imprompt.core.values import Vectors
from imprompt.encoders.foreign import read_json
from imprompt.encoders.onnx_runtime import ForeignGraph, onnx_device

PUBLISHER = "SmilingWolf/"
"""All repositories with this owner are taggers."""
NETWORK = "model.onnx"
TAGS = "selected_tags.csv"
GENERAL_THRESHOLD = 0.35
CHARACTER_THRESHOLD = 0.85
"""Probabilities from which a tag is said; the usual ones of the wd taggers."""

_THRESHOLDS = {"0": GENERAL_THRESHOLD, "4": CHARACTER_THRESHOLD}
"""By category; ratings (9) and other categories are never said."""
_KAOMOJI = frozenset(
    {"0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3", "6_9"}
    | {">_o", "@_@", "^_^", "o_o", "u_u", "x_x", "|_|", "||_||"}
)
"""Tags that are faces: their underscore is a mouth."""
_AT_ONCE = 4
_MOST_AT_ONCE = 64
_MAX_PADDED_PX = 4096
"""A longer picture is made smaller before it is padded to a square."""
_SIDES_PX = range(32, 1025)
_MAX_CSV_BYTES = 8 << 20
_MAX_TAG_CHARS = 256
_REMEDY = (
    f"Name a folder or repository of the wd family, with {NETWORK} and {TAGS}, such as "
    "SmilingWolf/wd-vit-tagger-v3."
)


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag as it is said, and the probability from which it is; None for never."""

    text: str
    threshold: float | None


class Tagger:
    """A captioner that lists tags, the most probable first; see `load`."""

    def __init__(
        self, graph: ForeignGraph, tags: Sequence[Tag], *, files: Sequence[Path], announce: Announce
    ) -> None:
        self._graph = graph
        self._tags = tuple(tags)
        self._announce = announce
        self.files = tuple(files)
        if len(graph.input_shape) != 4:
            raise self._wrong_input()
        n, height, width, channels = graph.input_shape
        if height not in _SIDES_PX or width != height or channels != 3:
            raise self._wrong_input()
        if n is not None and not 1 <= n <= _MOST_AT_ONCE:
            raise self._rejected(f"takes {n:,} images at once, not 1 to {_MOST_AT_ONCE}")
        self._side_px = height
        self._at_once = n or _AT_ONCE

    @classmethod
    def load(cls, source: str, *, device: str, offline: bool, announce: Announce) -> Tagger:
        """Return the tagger of a folder, which goes first, or of OWNER/NAME on the hub.

        Raises:
            EncoderError: ONNX Runtime cannot be loaded.
            WeightsMissing: a file is missing and cannot be fetched.
            WeightsRejected: a file is damaged, or belongs to another kind of model.
        """
        folder = Path(source).expanduser()
        if folder.is_dir():
            network, tags = folder / NETWORK, folder / TAGS
        else:
            fetch_all(lambda: wanted_files(source), offline=offline, announce=announce)
            network, tags = (
                fetch_choice(want.choices, offline=offline, announce=announce)
                for want in wanted_files(source)
            )
        on_cuda = onnx_device(device, announce=announce) == "cuda"
        graph = ForeignGraph(network, hint=_REMEDY, on_cuda=on_cuda)
        return cls(graph, read_tags(tags), files=(network, tags), announce=announce)

    def captions(self, images: Sequence[Image.Image]) -> list[str]:
        """Return the tags of each upright RGB image, joined by commas, in order.

        It is "" where no tag is probable enough.

        Raises:
            WeightsRejected: the files do not fit together.
        """
        captions = []
        for start in range(0, len(images), self._at_once):
            batch = [
                prepared(image, self._side_px) for image in images[start : start + self._at_once]
            ]
            n = len(batch)
            if self._graph.input_shape[0] is not None:  # always so many at once
                batch += [batch[-1]] * (self._at_once - n)
            captions += [self._caption(row) for row in self._probabilities(np.stack(batch))[:n]]
        if untold := captions.count(""):
            self._announce(
                f"caption: no tag is probable enough for {untold} of {len(captions)} images."
            )
        return captions

    def _probabilities(self, batch: NDArray[np.float32]) -> Vectors:
        rows = self._graph(batch)
        if rows.dtype != np.float32 or rows.shape != (len(batch), len(self._tags)):
            raise self._rejected(
                f"gives {rows.shape} numbers for {len(batch)} images and {len(self._tags):,} tags"
            )
        if not (np.isfinite(rows).all() and rows.min() >= 0 and rows.max() <= 1):
            raise self._rejected("gives values that are no probabilities")
        return rows

    def _caption(self, probabilities: NDArray[np.float32]) -> str:
        said = []
        for number in np.argsort(-probabilities, kind="stable"):
            tag = self._tags[number]
            if tag.threshold is not None and probabilities[number] >= tag.threshold:
                said.append(tag.text)
        return ", ".join(said)

    def _wrong_input(self) -> WeightsRejected:
        return self._rejected(
            f"takes an array of {self._graph.input_shape}, not square images with channels last"
        )

    def _rejected(self, what: str) -> WeightsRejected:
        return WeightsRejected(f"{self.files[0]} {what}.", path=self.files[0], hint=_REMEDY)


def is_tagger(source: str) -> bool:
    """Return whether a folder or repository is known to be a tagger, from the files here.

    Besides `PUBLISHER`'s those are folders and repositories with a list of tags, and repositories
    whose config.json is timm's.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return (folder / TAGS).is_file()
    if source.startswith(PUBLISHER) or cached_file(HubFile(source, TAGS)) is not None:
        return True
    path = cached_file(HubFile(source, "config.json"))
    config = read_json(path) if path is not None else None
    return isinstance(config, dict) and "pretrained_cfg" in config and "model_type" not in config


def wanted_files(repo: str) -> list[Wanted]:
    """Return the files of a tagger: the network and its tags."""
    return [wanted(repo, name, if_absent=_REMEDY) for name in (NETWORK, TAGS)]


def read_tags(path: Path) -> list[Tag]:
    """Return the tags of an untrusted table with the columns tag_id, name, category, count.

    Raises:
        WeightsMissing: the file cannot be read.
        WeightsRejected: it is no such table.
    """
    try:
        if path.stat().st_size > _MAX_CSV_BYTES:
            raise _no_tags(path, f"is longer than {_MAX_CSV_BYTES:,} bytes")
        header, *rows = csv.reader(path.read_text("utf-8").splitlines(), strict=True)
    except OSError as error:
        raise WeightsMissing(
            f"{path} cannot be read: {error.strerror}.", path=path, hint=_REMEDY
        ) from error
    except (ValueError, csv.Error) as error:
        raise _no_tags(path, "is no table of tags") from error
    if header[:3] != ["tag_id", "name", "category"]:
        raise _no_tags(path, "does not have the columns tag_id, name and category")
    if not rows:
        raise _no_tags(path, "has no tags")
    tags = []
    for number, row in enumerate(rows, start=2):
        if len(row) < 3 or not 0 < len(row[1]) <= _MAX_TAG_CHARS or not row[1].isprintable():
            raise _no_tags(path, f"has no tag in line {number}")
        name = row[1] if row[1] in _KAOMOJI else row[1].replace("_", " ")
        tags.append(Tag(name, _THRESHOLDS.get(row[2])))
    return tags


def prepared(image: Image.Image, side_px: int) -> NDArray[np.float32]:
    """Return an upright RGB image as (side, side, 3) BGR from 0 to 255, on a white square."""
    longest = max(image.size)
    if longest > _MAX_PADDED_PX:
        scale = _MAX_PADDED_PX / longest
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        longest = max(image.size)
    square = Image.new("RGB", (longest, longest), "white")
    square.paste(image, ((longest - image.width) // 2, (longest - image.height) // 2))
    if longest != side_px:
        square = square.resize((side_px, side_px), Image.Resampling.BICUBIC)
    return np.asarray(square, np.float32)[:, :, ::-1]


def _no_tags(path: Path, what: str) -> WeightsRejected:
    return WeightsRejected(f"{path} {what}.", path=path, hint=_REMEDY)
