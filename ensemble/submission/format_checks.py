"""Is a submission what the competition takes?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from imprompt.ensemble.submission.formats import DIM, image_order, read_submission

_NORM_TOLERANCE = 1e-3
_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Checked:
    """`problems` of a submission, one line each, none where it can be submitted;

    `images` and `rows` that it has.
    """

    images: int
    rows: int
    problems: tuple[str, ...]


@dataclass(slots=True)
class _Image:
    """What was seen of one image: a bit for each of its rows, and the squares of its values added up."""

    seen: int = 0
    squares: float = 0.0


@dataclass(slots=True)
class _Tally:
    """Findings of one kind: how many, and the first of them."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(example)

    def line(self, what: str) -> str:
        more = ", …" if self.count > len(self.examples) else ""
        return f"{self.count:,} {what}: {', '.join(self.examples)}{more}"


def check_submission(path: Path, *, sample: Path) -> Checked:
    """Compare a submission with the sample: columns, ids, their order, finite values, vectors of length 1.

    Memory is bounded by the number of images, not of rows.

    Raises:
        SubmissionRejected: a file cannot be read as a submission at all, or the sample is not one.
        ConfigError: a file's suffix names no format.
    """
    order = image_order(sample)
    expected = dict.fromkeys(order)
    images: dict[str, _Image] = {}
    tallies: dict[str, _Tally] = {}
    rows, in_order = 0, True

    def found(what: str, example: str) -> None:
        tallies.setdefault(what, _Tally()).add(example)

    for row_id, value in read_submission(path):
        name, _, number = row_id.rpartition("_")
        element = (
            int(number)
            if number.isascii() and number.isdecimal() and str(int(number)) == number
            else DIM
        )
        rows += 1
        if in_order and (
            rows > len(order) * DIM or row_id != f"{order[(rows - 1) // DIM]}_{(rows - 1) % DIM}"
        ):
            in_order = False
            first = f"row {rows} is {row_id}"
        if not name or element >= DIM:
            found(f"row(s) whose id is not IMAGE_0 to IMAGE_{DIM - 1}", repr(row_id))
            continue
        image = images.setdefault(name, _Image())
        if image.seen >> element & 1:
            found("row(s) that are there twice", row_id)
        image.seen |= 1 << element
        image.squares += value * value
        if not math.isfinite(value):
            found("value(s) that are not finite", f"{row_id} (row {rows})")
    _compare(images, expected, found)
    if not in_order and not tallies:
        found("place where the order differs from the sample's", first)
    return Checked(len(images), rows, tuple(tally.line(what) for what, tally in tallies.items()))


def _compare(
    images: dict[str, _Image], expected: dict[str, None], found: Callable[[str, str], None]
) -> None:
    for name in expected:
        if name not in images:
            found("image(s) of the sample that are missing", name)
    for name, image in images.items():
        n_rows = image.seen.bit_count()
        if name not in expected:
            found("image(s) that the sample does not have", name)
        elif n_rows != DIM:
            found(f"image(s) without all {DIM} rows", f"{name} ({n_rows})")
        elif abs(math.sqrt(image.squares) - 1) > _NORM_TOLERANCE:
            found(
                "image(s) whose vector is not of length 1",
                f"{name} ({math.sqrt(image.squares):.4g})",
            )
