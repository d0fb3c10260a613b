"""Predictions on a Ray cluster: each actor opens the index, loads the ensemble and takes batches.

Index and images lie in folders that every machine reaches under the same path; an actor refuses to
work if it sees other ones. Predictions come back through Ray's object store and are kept on this
machine, as those of a local run are.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from imprompt.core.errors import WorkerDiffers
from imprompt.encoders.registry import load_index_encoder
from imprompt.ensemble.blend_config import BlendConfig
from imprompt.ensemble.ensemble import Ensemble
from imprompt.ensemble.members import load_ensemble
from imprompt.ensemble.submission.batch_predictions import (
    BatchPredictions,
    ImageBatch,
    predict_batch,
)
from imprompt.ensemble.submission.submission_plan import depends_on, stamp
from imprompt.indexer.ray_session import RayCluster
from imprompt.indexer.ray_stream import Rounds, stream
from imprompt.store.index_version import open_version

MakeEnsemble = Callable[[ExitStack], tuple[Ensemble, dict[str, Any]]]
"""Makes an actor's ensemble and tells what it depends on; pushes what is to be closed."""

Stamp = tuple[int, int]
StampedBatch = tuple[ImageBatch, list[Stamp]]


@dataclass(frozen=True, slots=True)
class NamedEnsemble:
    """Makes the ensemble of a blend config over one version on any machine; fetches nothing."""

    index: Path
    version: str
    blend_config: BlendConfig
    degrade: bool
    device: str

    def __call__(self, stack: ExitStack) -> tuple[Ensemble, dict[str, Any]]:
        version = stack.enter_context(open_version(self.index, self.version))
        encoder = load_index_encoder(version.manifest.encoders[0], device=self.device, offline=True)
        ensemble = load_ensemble(
            self.blend_config,
            version,
            encoder,
            degrade=self.degrade,
            device=self.device,
            offline=True,
        )
        return ensemble, depends_on(version, ensemble)


class RayPredictor:
    """A `BatchPredictor` whose batches are predicted by the actors of a cluster.

    Args:
        cluster: from `imprompt.indexer.ray_session.ray_cluster`.
        make_ensemble: makes the ensemble in an actor; picklable.
        depends_on: what predictions depend on, as this machine sees it.
    """

    def __init__(
        self, cluster: RayCluster, make_ensemble: MakeEnsemble, depends_on: dict[str, Any]
    ) -> None:
        self._cluster = cluster
        self._make = partial(_BatchActor, make_ensemble, _encoded(depends_on))

    def predictions(
        self, batches: Sequence[ImageBatch]
    ) -> Iterator[tuple[ImageBatch, BatchPredictions]]:
        """See `BatchPredictor.predictions`.

        Raises:
            ClusterError: the cluster keeps losing its work, or its workers differ from this
                machine.
        """
        pending = {batch.number: batch for batch in batches}

        def begin() -> Iterator[tuple[ImageBatch, BatchPredictions]] | None:
            return predict() if pending else None

        def predict() -> Iterator[tuple[ImageBatch, BatchPredictions]]:
            for number, predictions in stream(
                partial(_stamped, list(pending.values())), self._make, pool=self._cluster.devices
            ):
                yield pending.pop(number), predictions

        yield from Rounds(begin)


def _stamped(batches: Sequence[ImageBatch]) -> Iterator[StampedBatch]:
    for batch in batches:
        yield batch, [stamp(path) for path in batch.paths]


def _encoded(depends_on: dict[str, Any]) -> dict[str, bytes]:
    return {name: msgspec.json.encode(value, order="sorted") for name, value in depends_on.items()}


class _BatchActor:
    """Predicts batches in an actor.

    Raises:
        WorkerDiffers: the index, models or libraries of this machine differ from those `expected`;
            when called, an image differs.
    """

    def __init__(self, make_ensemble: MakeEnsemble, expected: dict[str, bytes]) -> None:
        self._stack = ExitStack()  # stays open as long as the actor lives
        self._ensemble, depends_on = make_ensemble(self._stack)
        actual = _encoded(depends_on)
        if differing := sorted(
            name for name in expected | actual if expected.get(name) != actual.get(name)
        ):
            raise WorkerDiffers(
                f"{socket.gethostname()} would predict differently from this machine: "
                f"its {', '.join(differing)} differ.",
                hint="Install the same packages and weights on every machine, and share the "
                "folder of the index.",
            )

    def __call__(self, item: StampedBatch) -> tuple[int, BatchPredictions]:
        batch, stamps = item
        for path, expected in zip(batch.paths, stamps, strict=True):
            if stamp(path) != expected:
                raise WorkerDiffers(
                    f"{socket.gethostname()} does not see {path} as this machine does.",
                    hint="Share the folder of the images, under the same path on every machine.",
                )
        return batch.number, predict_batch(batch, self._ensemble)
