"""A submission whose batches are predicted elsewhere equals the local one; without Ray."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from imprompt.core.errors import WorkerDiffers
from imprompt.ensemble.ensemble import Ensemble
from imprompt.ensemble.submission.ray_predictions import RayPredictor
from imprompt.ensemble.submission.submission_job import SubmitReport, submit
from imprompt.store.index_version import IndexVersion, open_version
from tests.ensemble.builders import FixedMember, ensemble, save_pictures
from tests.indexer.lossy import CLUSTER, Lossy

WEIGHTS = {"knn": 0.9, "sayer": 0.1}


def make_ensemble(
    index: Path, depends: dict[str, Any], stack: ExitStack
) -> tuple[Ensemble, dict[str, Any]]:
    """What an actor makes."""
    version = stack.enter_context(open_version(index))
    return ensemble(version, FixedMember("sayer", "green hill"), weights=WEIGHTS), depends


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eleven pictures in batches of three, and a file that is none."""
    monkeypatch.setattr("imprompt.ensemble.submission.submission_plan.BATCH_IMAGES", 3)
    save_pictures(tmp_path / "images", 10)
    (tmp_path / "images" / "000a.png").write_text("no picture", "utf-8")
    return tmp_path / "images"


@pytest.fixture
def answered(
    version: IndexVersion, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Submits the images to `name`.csv, through a stream where one is given."""

    def run(
        name: str, stream: Any = None, *, expected: Any = None
    ) -> tuple[SubmitReport, bytes, bytes]:
        here = ensemble(version, FixedMember("sayer", "green hill"), weights=WEIGHTS)
        predictor = None
        if stream is not None:
            monkeypatch.setattr("imprompt.ensemble.submission.ray_predictions.stream", stream)
            index = version.folder.parent.parent
            predictor = RayPredictor(
                CLUSTER,
                partial(make_ensemble, index, {"rows_digest": "a"}),
                expected or {"rows_digest": "a"},
            )
        out, prompts = tmp_path / f"{name}.csv", tmp_path / f"{name}-prompts.csv"
        report = submit(
            images, out, ensemble=here, depends_on={}, prompts_out=prompts, predictor=predictor
        )
        return report, out.read_bytes(), prompts.read_bytes()

    return run


@pytest.mark.parametrize("lost", [[], [{0, 2}, {1}], [{-1}, {3}, {-1}]], ids=str)
def test_it_is_the_local_submission(lost: list[set[int]], answered: Any) -> None:
    """To the byte, the image that cannot be read included; a lost batch is answered again."""
    here, vectors, prompts = answered("here")
    report, far_vectors, far_prompts = answered("far", Lossy(*lost))
    assert (far_vectors, far_prompts) == (vectors, prompts)
    assert (report.images, report.failed, report.resumed) == (11, here.failed, 0)
    assert [name for name, _ in here.failed] == ["000a"]


def test_a_local_run_goes_on_elsewhere(answered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that are done are not answered again."""
    _, vectors, prompts = answered("here")
    with monkeypatch.context() as patch:
        patch.setattr(
            "imprompt.ensemble.submission.submission_job._gather",
            lambda *_: Path("/nowhere").stat(),
        )
        with pytest.raises(FileNotFoundError):
            answered("far")
    stream = Lossy()
    report, far_vectors, far_prompts = answered("far", stream)
    assert (far_vectors, far_prompts) == (vectors, prompts)
    assert (report.resumed, stream.worked) == (11, 0)


def test_another_index_or_model_is_refused(answered: Any) -> None:
    """What predictions depend on is compared field by field, and differing fields are named."""
    with pytest.raises(WorkerDiffers, match="its models, rows_digest differ"):
        answered("far", Lossy(), expected={"rows_digest": "b", "models": {}})


def test_another_image_is_refused(answered: Any, images: Path) -> None:
    """A machine that sees another file, or none, would predict something else."""
    path = max(images.iterdir())

    class Moved(Lossy):
        def __call__(self, produce: Any, make: Any, **options: Any) -> Any:
            items = list(produce())
            os.utime(path, ns=(1, 1))
            return super().__call__(lambda: iter(items), make, **options)

    with pytest.raises(WorkerDiffers, match=f"does not see .*{path.name}"):
        answered("far", Moved())
