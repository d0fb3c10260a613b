"""A submission on a cluster of Ray: each actor opens the index and loads the ensemble, and answers whole batches of images.

Index and images lie in folders that every machine reaches under the same path; an actor that finds
something else there refuses. What it says of a batch comes back through Ray's object store and is
kept here, as a local run keeps it.
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
from imprompt.ensemble.submission.submission_job import depends_on, stamp
from imprompt.indexer.ray_session import RayCluster
from imprompt.indexer.ray_stream import Rounds, stream
from imprompt.store.index_version import open_version

MakeEnsemble = Callable[[ExitStack], tuple[Ensemble, dict[str, Any]]]
"""Makes the ensemble of an actor, and says what its answers depend on; what has to be closed goes onto the stack."""

Stamp = tuple[int, int]
Stamped = tuple[ImageBatch, list[Stamp]]


@dataclass(frozen=True, slots=True)
class NamedEnsemble:
    """Makes the ensemble of a blend config over one version, on whatever machine; it fetches nothing."""

    index: Path
    version: str
    blend_config: BlendConfig
    degrade: bool
    device: str

    def __call__(self, stack: ExitStack) -> tuple[Ensemble, dict[str, Any]]:
        version = stack.enter_context(open_version(self.index, self.version))
        pair = load_index_encoder(
            version.manifest.encoders[0].name, device=self.device, offline=True
        )
        ensemble = load_ensemble(
            self.blend_config, version, pair, degrade=self.degrade, device=self.device, offline=True
        )
        return ensemble, depends_on(version, ensemble)


class RayPredictor:
    """An `imprompt.ensemble.submission.batch_predictions.BatchPredictor`.

    Args:
        cluster: as `imprompt.indexer.ray_session.ray_cluster` gave it.
        make_ensemble: makes the ensemble in an actor; picklable.
        depends_on: what the answers depend on here.
    """

    def __init__(
        self, cluster: RayCluster, make_ensemble: MakeEnsemble, depends_on: dict[str, Any]
    ) -> None:
        self._cluster = cluster
        self._make = partial(_Answering, make_ensemble, _fields(depends_on))

    def predictions(
        self, batches: Sequence[ImageBatch]
    ) -> Iterator[tuple[ImageBatch, BatchPredictions]]:
        """As `BatchPredictor.answers`.

        Raises:
            ClusterError: the cluster loses its work again and again, or its workers are not like
                this machine.
        """
        left = {batch.number: batch for batch in batches}

        def begin() -> Iterator[tuple[ImageBatch, BatchPredictions]] | None:
            return answered() if left else None

        def answered() -> Iterator[tuple[ImageBatch, BatchPredictions]]:
            for number, done in stream(
                partial(_stamped, list(left.values())), self._make, pool=self._cluster.devices
            ):
                yield left.pop(number), done

        yield from Rounds(begin)


def _stamped(batches: Sequence[ImageBatch]) -> Iterator[Stamped]:
    for batch in batches:
        yield batch, [stamp(path) for path in batch.paths]


def _fields(depends_on: dict[str, Any]) -> dict[str, bytes]:
    return {name: msgspec.json.encode(value, order="sorted") for name, value in depends_on.items()}


class _Answering:
    """Answers batches, in an actor.

    Raises:
        WorkerDiffers: index, models or libraries here are others; also from a call, where an image
            is.
    """

    def __init__(self, make_ensemble: MakeEnsemble, expected: dict[str, bytes]) -> None:
        self._stack = ExitStack()  # open as long as the actor lives
        self._ensemble, depends_on = make_ensemble(self._stack)
        found = _fields(depends_on)
        if differ := sorted(
            name for name in expected | found if expected.get(name) != found.get(name)
        ):
            raise WorkerDiffers(
                f"{socket.gethostname()} would give other answers than this machine: its {', '.join(differ)} differ.",
                hint="Install the same packages and weights on every machine, and share the folder of the index.",
            )

    def __call__(self, item: Stamped) -> tuple[int, BatchPredictions]:
        batch, stamps = item
        for path, expected in zip(batch.paths, stamps, strict=True):
            if stamp(path) != expected:
                raise WorkerDiffers(
                    f"{socket.gethostname()} does not see {path} as this machine does.",
                    hint="Share the folder of the images, under the same path on every machine.",
                )
        return batch.number, predict_batch(batch, self._ensemble)
