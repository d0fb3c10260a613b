"""Loads the models of a server once, and makes snapshots of index versions with them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, TypeAlias

from imprompt.core.errors import MemberUnavailable
from imprompt.core.hub.fetch import Announce
from imprompt.core.predicates import Column, Comparison, Literal
from imprompt.core.values import EncoderSpec, Vectors
from imprompt.encoders.caching import CachedEncoder
from imprompt.encoders.lite import LiteEncoder, load_lite
from imprompt.ensemble.blend_config import load_blend_config
from imprompt.ensemble.members import load_ensemble
from imprompt.retriever import Question, Retriever
from imprompt.retriever.questions import ReadQuestion
from imprompt.server.server_settings import ServerSettings
from imprompt.server.snapshots import Snapshot

if TYPE_CHECKING:
    from PIL.Image import Image

    from imprompt.core.protocols import DualEncoder, TextEncoder
    from imprompt.ensemble.ensemble import Ensemble
    from imprompt.store.gpu import Gpu
    from imprompt.store.open_index import OpenIndex

_LOG = logging.getLogger("imprompt.server")
_WARM_UP_TEXT = "a text that warms up the models"
_WARM_UP_SIDE_PX = 64


class OutputEncoder:
    """A dual encoder of MiniLM's space; for images it is the estimate of the `lite` encoder."""

    def __init__(self, texts: TextEncoder, lite: LiteEncoder) -> None:
        self.spec = lite.minilm.spec
        self.texts = texts
        self.images = _OutputImages(lite)


class _OutputImages:
    def __init__(self, lite: LiteEncoder) -> None:
        self._lite = lite

    def encode(self, items: Sequence[Image]) -> Vectors:
        """Return (n, 384) unit rows in MiniLM space."""
        return self._lite.images.output(items)


LoadEncoder: TypeAlias = "Callable[[EncoderSpec], DualEncoder]"
"""Loads the encoder of an index, or the one that the operator names instead."""


class Models:
    """The encoder, kept while its weights are the same, and the ensemble, loaded for each version.

    Args:
        load: see `LoadEncoder`.
        announce: takes a line for the person who started the server.
        gpu: searches each version; None for the CPU.

    Raises:
        ConfigError: no blend config has the name in `settings`.
    """

    def __init__(
        self,
        settings: ServerSettings,
        *,
        load: LoadEncoder,
        announce: Announce,
        gpu: Gpu | None = None,
    ) -> None:
        self._settings = settings
        self._gpu = gpu
        self._load = load
        self._announce = announce
        self._blend_config = load_blend_config(settings.blend_config)
        self._encoder: tuple[tuple[object, ...], DualEncoder] | None = None

    def prepare(self, version: OpenIndex) -> Snapshot:
        """Return a snapshot of the version whose models have all been used once.

        Raises:
            SpaceMismatch: the requested encoder is of another space than the index.
            EncoderError: a model cannot be loaded.
        """
        if self._gpu is not None:
            version.search_on(self._gpu)
        spec = version.manifest.encoders[0]
        name = self._settings.encoder or spec.name
        # A weight file may have been trained again under its name.
        identity = (name, spec.space, *sorted(spec.weights_sha256.items()))
        if self._encoder is None or self._encoder[0] != identity:
            self._encoder = identity, self._load(spec)
        encoder = self._encoder[1]
        ensemble = self._load_ensemble(version, encoder)
        # The retriever and the ensemble share one encoder, so that each image is encoded once.
        shared = (
            CachedEncoder(encoder)
            if isinstance(ensemble, MemberUnavailable)
            else ensemble.neighbourhood.encoder
        )
        retriever = Retriever(version, shared)
        _warm_up(retriever, ensemble)
        output = self._output_encoder(encoder, ensemble)
        return Snapshot(version, shared, output, retriever, ensemble, _sources(version))

    def _output_encoder(
        self, encoder: DualEncoder, ensemble: Ensemble | MemberUnavailable
    ) -> OutputEncoder:
        if isinstance(encoder, LiteEncoder):
            lite = encoder
        else:
            lite = load_lite(device=self._settings.device, announce=self._announce)
        minilm = lite.minilm if isinstance(ensemble, MemberUnavailable) else ensemble.minilm
        return OutputEncoder(minilm, lite)

    def _load_ensemble(
        self, version: OpenIndex, encoder: DualEncoder
    ) -> Ensemble | MemberUnavailable:
        """Return the ensemble, or the error that every request for its members gets."""
        settings = self._settings
        try:
            return load_ensemble(
                self._blend_config,
                version,
                encoder,
                degrade=settings.degrade,
                device=settings.device,
                offline=settings.offline,
                announce=self._announce,
            )
        except MemberUnavailable as error:
            extra = {"event": "no-ensemble", "member": error.name}
            _LOG.warning("the ensemble is unavailable", extra=extra)
            self._announce(
                f"The ensemble of blend config {self._blend_config.name} is unavailable: {error}"
            )
            return error


def _sources(version: OpenIndex) -> dict[str, int]:
    """Return how many prompts each corpus of a version has, in the order of the manifest."""
    names = list(dict.fromkeys(corpus.name for corpus in version.manifest.corpus))
    if len(names) == 1:
        return {names[0]: version.manifest.rows}
    rows = {
        name: len(version.prompts.matching(Comparison("=", Column("source"), Literal(name))))
        for name in names
    }
    return {name: n_rows for name, n_rows in rows.items() if n_rows}


def _warm_up(retriever: Retriever, ensemble: Ensemble | MemberUnavailable) -> None:
    """Use every model once, so that no client waits for first-use work."""
    from PIL import Image

    picture = Image.new("RGB", (_WARM_UP_SIDE_PX, _WARM_UP_SIDE_PX), (120, 130, 140))
    if not isinstance(ensemble, MemberUnavailable):
        ensemble.predict([picture])
    questions = [
        ReadQuestion(Question(text=_WARM_UP_TEXT), None, _WARM_UP_TEXT, None),
        ReadQuestion(Question(image=b""), picture, "", None),
    ]
    retriever.answer(questions, 1, begun=perf_counter())
