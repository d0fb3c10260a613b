"""The tables of the attempts on the head of `lite`, for `lite_head.py`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.lite_attempts import (
    ATTEMPTS,
    COLUMNS,
    FURTHER,
    Attempt,
    figures,
    generated_sets,
    run_attempt,
)
from benchmarks.lite_kinds import KINDS, test_chances, true_kinds
from benchmarks.lite_study import Prediction, Study, gains
from benchmarks.machine import machine
from imprompt.core.metrics import average_precision

FURTHER_TITLE = "## Further attempts"


def attempt_table(study: Study) -> list[str]:
    """Return the lines of the table of attempts."""
    lines = [
        "",
        "## Attempts",
        "",
        "A line that begins with … adds one change to the line before; the others are the shipped "
        "settings with one change. Kernel form: features are scaled, and their principal "
        "components chosen, over all rows (no label is used for that, but R@10 is up to .01 "
        "higher than above); each kind of image has its own wording. Generated images, "
        "but where it says photographs.",
        "",
        *_heading("attempt", COLUMNS),
    ]
    lines.extend(_line(study, attempt, *run_attempt(study, attempt)) for attempt in ATTEMPTS)
    return lines


def further_table(study: Study) -> Iterator[list[str]]:
    """Yield the lines on heads of kinds and on several views of an image, after each attempt."""
    facts = ", ".join(f"{name} {value}" for name, value in machine("torch", "numpy").items())
    sets = [rows for rows in generated_sets(study) if len(rows)]
    lines, gained = [], []
    shipped: Prediction | None = None
    for attempt in FURTHER:
        inside, outside = run_attempt(study, attempt)
        lines.append(_line(study, attempt, inside, outside))
        if shipped is None:
            shipped = outside
            continue
        both = [str(gain) for rows in sets for gain in gains(study, outside, shipped, rows)]
        gained.append(f"| {attempt.name} | {' | '.join(both)} |")
        print(gained[-1], flush=True)
        yield [
            "",
            FURTHER_TITLE,
            "",
            f"Made by `python benchmarks/lite_head.py --further`; {facts}.",
            "",
            "The shipped settings with one change, in kernel form as above. *Kinds*: those of the "
            "last table; how likely an image is of each is learned like the tags. *Views*: what "
            "lite0 makes of the views is averaged, in training too; the middle is 75 % of each "
            "side. Of lite2 there is one view: a second pass would take the time of an image "
            "above .06 s.",
            "",
            *_heading("attempt", COLUMNS),
            *lines,
            "",
            "Gain over the shipped settings with sources left out, pair by pair, with 95 % "
            "intervals (bootstrap over groups):",
            "",
            *_heading("attempt", COLUMNS[4:]),
            *gained,
            *_kind_lines(study),
        ]


def _kind_lines(study: Study) -> list[str]:
    """Tell how well pictures show their kind; `further_table` has learned the probabilities."""
    chances = np.zeros((len(study.rows), len(KINDS)))
    for fold in study.source_folds:
        chances[fold[1]] = test_chances(study, fold)
    lines = [
        "",
        "How well the kinds of generated images are seen, sources left out. *Pairs*: the prompt "
        "names the kind. *AP*: average precision; *chance*: of a random order.",
        "",
        *_heading("kind", ("pairs", "AP", "chance")),
    ]
    rows = np.flatnonzero(study.generated)
    for kind, name in enumerate(KINDS):
        held = true_kinds(study)[rows, kind]
        precision = average_precision(chances[rows, kind], held)
        lines.append(f"| {name} | {held.sum():,} | {precision:.3f} | {held.mean():.3f} |")
    return lines


def _heading(first: str, columns: tuple[str, ...]) -> list[str]:
    return [f"| {first} | {' | '.join(columns)} |", f"|{' --- |' * (1 + len(columns))}"]


def _line(study: Study, attempt: Attempt, inside: Prediction, outside: Prediction) -> str:
    cells = " | ".join(f"{figure:.3f}" for figure in figures(study, inside, outside))
    line = f"| {attempt.name} | {cells} |"
    print(line, flush=True)
    return line
