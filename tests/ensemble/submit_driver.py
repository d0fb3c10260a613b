"""Makes a submission and kills itself at a named point; run by `test_submission_kills.py`.

    python tests/ensemble/submit_driver.py INDEX FOLDER OUT POINT

The points wrap functions of the product from outside. POINT "none" kills nowhere, "signal" says
"ready" once everything is imported, then works slowly enough to be killed from outside.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL.Image import Image

import imprompt.ensemble.submission.formats
import imprompt.ensemble.submission.submission_job
import imprompt.ensemble.submission.submission_plan
from imprompt.core.values import Prediction
from imprompt.ensemble.submission.submission_job import SubmitReport, submit
from imprompt.store.index_version import open_version
from tests.ensemble.builders import FixedMember
from tests.ensemble.builders import ensemble as ensemble_of
from tests.killing import before, in_the_middle_of_a_file

BATCH_IMAGES = 4


class Counting(FixedMember):
    """A member that counts the pictures it was shown, and takes its time where it is told to."""

    def __init__(self, pause_s: float = 0) -> None:
        super().__init__("sayer", "green hill")
        self.pause_s = pause_s

    def predict(self, images: Sequence[Image]) -> Prediction:
        time.sleep(self.pause_s)
        return super().predict(images)


def run(index: Path, folder: Path, out: Path, member: Counting) -> SubmitReport:
    """The command that is broken off and given again."""
    imprompt.ensemble.submission.submission_plan.BATCH_IMAGES = BATCH_IMAGES
    with open_version(index) as version:
        members = ensemble_of(version, member, weights={"knn": 0.5, "sayer": 0.5})
        return submit(
            folder, out, ensemble=members, depends_on={}, prompts_out=out.with_name("prompts.csv")
        )


POINTS: dict[str, Callable[[], None]] = {
    "none": lambda: None,
    "within the first batch": lambda: before(Counting, "predict"),
    "in the middle of a batch's file": lambda: in_the_middle_of_a_file(
        imprompt.ensemble.submission.submission_job, call=3
    ),
    "between batches": lambda: before(
        imprompt.ensemble.submission.submission_job, "_write_batch", call=4
    ),
    "before the rows are gathered": lambda: before(
        imprompt.ensemble.submission.submission_job, "_gather"
    ),
    "in the middle of the submission": lambda: in_the_middle_of_a_file(
        imprompt.ensemble.submission.formats, call=1
    ),
    "before the batches are removed": lambda: before(shutil, "rmtree"),
}


def main() -> None:
    index, folder, out, point = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    if point == "signal":
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        run(index, folder, out, Counting(pause_s=0.05))
        return
    POINTS[point]()
    run(index, folder, out, Counting())


if __name__ == "__main__":
    main()
