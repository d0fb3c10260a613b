"""A submission on a real Ray cluster has the bytes of the local one, even if a node is lost."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from imprompt.core.errors import WorkerDiffers
from imprompt.core.progress import SILENT, Silent
from imprompt.ensemble.ensemble import Ensemble
from imprompt.ensemble.submission.ray_predictions import RayPredictor
from imprompt.ensemble.submission.submission_job import SubmitReport, submit
from imprompt.ensemble.submission.submission_plan import depends_on
from imprompt.indexer.ray_session import ray_cluster
from imprompt.store.index_version import IndexVersion, open_version
from tests.ensemble.builders import ensemble, save_pictures
from tests.ensemble.submit_driver import Counting
from tests.indexer.ray_nodes import nodes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # Ray warns of settings of its own, and leaves sockets and processes to the collector.
    pytest.mark.filterwarnings("ignore"),
]

IMAGES, BATCH_IMAGES = 40, 4


class Losing(Silent):
    """A progress that calls somebody when so many images are answered."""

    def __init__(self, images: int, call: Any) -> None:
        self.left, self.call = images, call

    def advance(self, n: int) -> None:
        if self.left > 0:
            self.left -= n
            if self.left <= 0:
                self.call()


def paused_ensemble(version: IndexVersion, pause_s: float) -> Ensemble:
    return ensemble(version, Counting(pause_s), weights={"knn": 0.5, "sayer": 0.5})


def make_ensemble(index: Path, stack: ExitStack) -> tuple[Ensemble, dict[str, Any]]:
    """Make an actor's ensemble, slow enough that a node is lost within a batch."""
    version = stack.enter_context(open_version(index))
    made = paused_ensemble(version, 0.1)
    return made, depends_on(version, made)


def test_it_is_the_local_submission(
    version: IndexVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three actors, one of them lost; a bad image is listed, and other models are refused."""
    monkeypatch.setattr("imprompt.ensemble.submission.submission_plan.BATCH_IMAGES", BATCH_IMAGES)
    save_pictures(tmp_path / "images", IMAGES)
    (tmp_path / "images" / "000a.png").write_text("no picture", "utf-8")
    made = paused_ensemble(version, 0)
    depends = depends_on(version, made)

    def run(
        name: str, predictor: RayPredictor | None = None, progress: Any = None
    ) -> tuple[SubmitReport, Sequence[bytes]]:
        out, prompts = tmp_path / f"{name}.csv", tmp_path / f"{name}-prompts.csv"
        report = submit(
            tmp_path / "images",
            out,
            ensemble=made,
            depends_on=depends,
            prompts_out=prompts,
            predictor=predictor,
            progress=progress or SILENT,
        )
        return report, [out.read_bytes(), prompts.read_bytes()]

    here, expected = run("here")
    index = version.folder.parent.parent
    with nodes(3) as cluster, ray_cluster(cluster.address, device="cpu") as offered:
        predictor = RayPredictor(offered, partial(make_ensemble, index), depends)
        report, found = run("far", predictor, Losing(3 * BATCH_IMAGES, cluster.lose))
        assert found == expected
        assert (report.images, report.failed, report.resumed) == (IMAGES + 1, here.failed, 0)
        differing = RayPredictor(
            offered,
            partial(make_ensemble, index),
            {**depends, "models": {"sayer": {"x": "another"}}},
        )
        with pytest.raises(WorkerDiffers, match="its models differ"):
            run("other", differing)
