"""Captions by a tagger of the wd family, an ONNX model that predicts Danbooru tags.

The layout is that of SmilingWolf's repositories: model.onnx takes images in BGR, 0 to 255, channels
last, and outputs a probability for each row of selected_tags.csv. Images are preprocessed and tags
chosen as in the author's own demo, the Space SmilingWolf/wd-tagger.
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
from imprompt.core.hub.fetch import Announce, fetch_choice
from imprompt.core.hub.hub_files import HubFile, Wanted, cached_file, wanted
from imprompt.core.values import Vectors
from imprompt.encoders.foreign import read_json
from imprompt.encoders.onnx_runtime import ForeignGraph, onnx_device

PUBLISHER = "SmilingWolf/"
"""All repositories of this owner are taken for taggers."""
NETWORK = "model.onnx"
TAGS = "selected_tags.csv"
GENERAL_THRESHOLD = 0.35
CHARACTER_THRESHOLD = 0.85
"""Least probabilities of a tag that is in the caption; the usual ones of the wd taggers."""

_THRESHOLDS = {"0": GENERAL_THRESHOLD, "4": CHARACTER_THRESHOLD}
"""By category; ratings (9) and other categories are left out."""
_KAOMOJI = frozenset(
    {"0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3", "6_9"}
    | {">_o", "@_@", "^_^", "o_o", "u_u", "x_x", "|_|", "||_||"}
)
"""Tags that are faces: their underscore is a mouth."""
_AT_ONCE = 4
_MOST_AT_ONCE = 64
_MAX_PADDED_PX = 4096
"""An image with a longer side is shrunk before it is padded to a square."""
_SIDES_PX = range(32, 1025)
_MAX_CSV_BYTES = 8 << 20
_MAX_TAG_CHARS = 256
_REMEDY = (
    f"Name a folder or repository of the wd family, with {NETWORK} and {TAGS}, such as "
    "SmilingWolf/wd-vit-tagger-v3."
)


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag as captions show it, and its least probability there; None leaves it out."""

    text: str
    threshold: float | None


class Tagger:
    """A captioner that lists tags, most probable first; `load` reads it from files."""

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
        if height is None or height not in _SIDES_PX or width != height or channels != 3:
            raise self._wrong_input()
        if n is not None and not 1 <= n <= _MOST_AT_ONCE:
            raise self._rejected(f"takes {n:,} images at once, not 1 to {_MOST_AT_ONCE}")
        self._side_px = height
        self._at_once = n or _AT_ONCE

    @classmethod
    def load(cls, source: str, *, device: str, offline: bool, announce: Announce) -> Tagger:
        """Return the tagger in a folder, or else in the repository OWNER/NAME on the hub.

        Raises:
            EncoderError: ONNX Runtime cannot be loaded.
            WeightsMissing: a file is missing and cannot be fetched.
            WeightsRejected: a file is damaged, or is not of a tagger.
        """
        folder = Path(source).expanduser()
        if folder.is_dir():
            network, tags = folder / NETWORK, folder / TAGS
        else:
            network, tags = (
                fetch_choice(want.choices, offline=offline, announce=announce)
                for want in wanted_files(source)
            )
        on_cuda = onnx_device(device, announce=announce) == "cuda"
        graph = ForeignGraph(network, hint=_REMEDY, on_cuda=on_cuda)
        return cls(graph, read_tags(tags), files=(network, tags), announce=announce)

    def captions(self, images: Sequence[Image.Image]) -> list[str]:
        """Return the comma-separated tags of each upright RGB image, in order.

        A caption is "" if no tag is probable enough.

        Raises:
            WeightsRejected: model and tags do not match, or the model exceeds its limits.
        """
        captions = []
        for start in range(0, len(images), self._at_once):
            batch = [
                prepared(image, self._side_px) for image in images[start : start + self._at_once]
            ]
            n = len(batch)
            if self._graph.input_shape[0] is not None:  # its batch size is fixed
                batch += [batch[-1]] * (self._at_once - n)
            captions += [self._caption(row) for row in self._probabilities(np.stack(batch))[:n]]
        if n_empty := captions.count(""):
            self._announce(
                f"caption: no tag is probable enough for {n_empty} of {len(captions)} images."
            )
        return captions

    def _probabilities(self, batch: NDArray[np.float32]) -> Vectors:
        rows = self._graph(batch)
        if rows.dtype != np.float32 or rows.shape != (len(batch), len(self._tags)):
            raise self._rejected(
                f"outputs an array of {rows.shape} for {len(batch)} images "
                f"and {len(self._tags):,} tags"
            )
        if not (np.isfinite(rows).all() and rows.min() >= 0 and rows.max() <= 1):
            raise self._rejected("outputs values that are not probabilities")
        return rows

    def _caption(self, probabilities: NDArray[np.float32]) -> str:
        chosen = []
        for number in np.argsort(-probabilities, kind="stable"):
            tag = self._tags[number]
            if tag.threshold is not None and probabilities[number] >= tag.threshold:
                chosen.append(tag.text)
        return ", ".join(chosen)

    def _wrong_input(self) -> WeightsRejected:
        return self._rejected(
            f"takes an array of {self._graph.input_shape}, not square images with channels last"
        )

    def _rejected(self, what: str) -> WeightsRejected:
        return WeightsRejected(f"{self.files[0]} {what}.", path=self.files[0], hint=_REMEDY)


def is_tagger(source: str) -> bool:
    """Return whether a folder or repository is known to be a tagger, without any request.

    It is one if `PUBLISHER` owns it, if it has a table of tags on this machine, or if its
    config.json here is in timm's layout.
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
    """Return the two files of a tagger: the model and its tags."""
    return [wanted(repo, name, if_absent=_REMEDY) for name in (NETWORK, TAGS)]


def read_tags(path: Path) -> list[Tag]:
    """Return the tags of an untrusted table with the columns tag_id, name, category, count.

    Raises:
        WeightsMissing: the file cannot be read.
        WeightsRejected: it is not such a table.
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
        raise _no_tags(path, "is not a table of tags") from error
    if header[:3] != ["tag_id", "name", "category"]:
        raise _no_tags(path, "does not have the columns tag_id, name and category")
    if not rows:
        raise _no_tags(path, "has no tags")
    tags = []
    for number, row in enumerate(rows, start=2):
        if len(row) < 3 or not 0 < len(row[1]) <= _MAX_TAG_CHARS or not row[1].isprintable():
            raise _no_tags(path, f"has no valid tag in line {number}")
        name = row[1] if row[1] in _KAOMOJI else row[1].replace("_", " ")
        tags.append(Tag(name, _THRESHOLDS.get(row[2])))
    return tags


def prepared(image: Image.Image, side_px: int) -> NDArray[np.float32]:
    """Return (side, side, 3) float32 BGR, 0 to 255, of an upright RGB image on a white square."""
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
