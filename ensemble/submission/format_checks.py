"""Checks that a submission is what the competition accepts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from imprompt.ensemble.submission.formats import DIM, image_order, read_submission

_NORM_TOLERANCE = 1e-3
_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The `images` and `rows` of a submission, and its `problems`, one line for each kind."""

    images: int
    rows: int
    problems: tuple[str, ...]


@dataclass(slots=True)
class _Image:
    """The rows of one image so far: a bit for each in `seen`, and the sum of squared values."""

    seen: int = 0
    squares: float = 0.0


@dataclass(slots=True)
class _Problems:
    """Problems by kind, each with its first examples."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, example: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < _EXAMPLES:
            examples.append(example)

    def lines(self) -> tuple[str, ...]:
        return tuple(
            f"{count:,} {kind}: {', '.join(self.examples[kind])}"
            + (", …" if count > _EXAMPLES else "")
            for kind, count in self.counts.items()
        )


def check_submission(path: Path, *, sample: Path) -> CheckReport:
    """Compare a submission with the sample: columns, ids, order, finite values, unit vectors.

    Memory is bounded by the number of images, not of rows.

    Raises:
        SubmissionRejected: a file cannot be read as a submission, or the sample is incomplete.
        ConfigError: no format has a file's suffix.
    """
    order = image_order(sample)
    images: dict[str, _Image] = {}
    problems = _Problems()
    rows, misplaced = 0, ""
    for rows, (row_id, value) in enumerate(read_submission(path), start=1):
        if not misplaced and (
            rows > len(order) * DIM or row_id != f"{order[(rows - 1) // DIM]}_{(rows - 1) % DIM}"
        ):
            misplaced = f"row {rows} is {row_id}"
        name, element = _parse(row_id)
        if element is None:
            problems.add(f"row(s) whose id is not IMAGE_0 to IMAGE_{DIM - 1}", repr(row_id))
            continue
        image = images.setdefault(name, _Image())
        if image.seen >> element & 1:
            problems.add("row(s) that appear twice", row_id)
        image.seen |= 1 << element
        image.squares += value * value
        if not math.isfinite(value):
            problems.add("value(s) that are not finite", f"{row_id} (row {rows})")
    _check_images(images, order, problems)
    if misplaced and not problems.counts:
        problems.add("place where the order differs from the sample's", misplaced)
    return CheckReport(len(images), rows, problems.lines())


def _parse(row_id: str) -> tuple[str, int | None]:
    """Return the image and the element of a row id; None for an id of another form."""
    name, _, number = row_id.rpartition("_")
    canonical = number.isascii() and number.isdecimal() and str(int(number)) == number
    if not name or not canonical or int(number) >= DIM:
        return name, None
    return name, int(number)


def _check_images(images: dict[str, _Image], order: list[str], problems: _Problems) -> None:
    for name in order:
        if name not in images:
            problems.add("image(s) of the sample that are missing", name)
    expected = set(order)
    for name, image in images.items():
        n_rows, norm = image.seen.bit_count(), math.sqrt(image.squares)
        if name not in expected:
            problems.add("image(s) that the sample does not have", name)
        elif n_rows != DIM:
            problems.add(f"image(s) without all {DIM} rows", f"{name} ({n_rows})")
        elif abs(norm - 1) > _NORM_TOLERANCE:
            problems.add("image(s) whose vector is not of length 1", f"{name} ({norm:.4g})")
