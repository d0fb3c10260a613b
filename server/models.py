"""Models that are loaded once, and what they make of a version."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from imprompt.core.errors import MemberUnavailable
from imprompt.core.hub.fetch import Announce
from imprompt.core.values import Vectors
from imprompt.encoders.lite import LiteEncoder, load_lite
from imprompt.ensemble.blend_config import load_blend_config
from imprompt.ensemble.members import load_ensemble
from imprompt.ensemble.neighbourhood import SharedPair
from imprompt.retriever import Question, Retriever
from imprompt.retriever.questions import ReadQuestion
from imprompt.server.server_settings import ServerConfig
from imprompt.server.snapshots import Snapshot

if TYPE_CHECKING:
    from PIL.Image import Image

    from imprompt.core.protocols import DualEncoder, TextEncoder
    from imprompt.ensemble.ensemble import Ensemble
    from imprompt.store.gpu import Gpu
    from imprompt.store.open_index import OpenIndex

_LOG = logging.getLogger("imprompt.server")
_WARM_TEXT = "a question that warms the models"
_WARM_SIDE_PX = 64


class OutputPair:
    """MiniLM's space as a pair: texts by MiniLM, pictures by the estimate of the embedded `lite` encoder."""

    def __init__(self, texts: TextEncoder, lite: LiteEncoder) -> None:
        self.spec = lite.minilm.spec
        self.texts = texts
        self.images = _Outputs(lite)


class _Outputs:
    def __init__(self, lite: LiteEncoder) -> None:
        self._lite = lite

    def encode(self, items: Sequence[Image]) -> Vectors:
        """(n, 384) unit rows in MiniLM space."""
        return self._lite.images.output(items)


class Models:
    """The encoder of the index, kept over versions, and the ensemble over each.

    Args:
        config: of the server.
        load: makes an encoder by its name.
        announce: takes a line for the person who started the server.
        gpu: searches each version; None for the processor.

    Raises:
        ConfigError: no blend config has that name.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        load: Callable[[str], DualEncoder],
        announce: Announce,
        gpu: Gpu | None = None,
    ) -> None:
        self._config = config
        self._gpu = gpu
        self._load = load
        self._announce = announce
        self._recipe = load_blend_config(config.blend_config)
        self._pair: tuple[str, DualEncoder] | None = None

    def prepare(self, version: OpenIndex) -> Snapshot:
        """A snapshot of the version whose models have all been used once.

        Raises:
            SpaceMismatch: the encoder that was asked for is of another space.
            EncoderError: a model cannot be loaded.
        """
        from PIL import Image

        if self._gpu is not None:
            version.search_on(self._gpu)
        name = self._config.encoder or version.manifest.encoders[0].name
        pair = (
            self._pair[1] if self._pair is not None and self._pair[0] == name else self._load(name)
        )
        self._pair = (name, pair)
        ensemble = self._ensemble(version, pair)
        shared = (
            SharedPair(pair)
            if isinstance(ensemble, MemberUnavailable)
            else ensemble.neighbourhood.pair
        )
        retriever = Retriever(version, shared)
        picture = Image.new("RGB", (_WARM_SIDE_PX, _WARM_SIDE_PX), (120, 130, 140))
        if not isinstance(ensemble, MemberUnavailable):
            ensemble.predict([picture])
        reads = [
            ReadQuestion(Question(text=_WARM_TEXT), None, _WARM_TEXT, None),
            ReadQuestion(Question(image=b""), picture, "", None),
        ]
        retriever.answer(reads, 1, begun=perf_counter())
        return Snapshot(version, shared, self._output(pair, ensemble), retriever, ensemble)

    def _output(self, pair: DualEncoder, ensemble: Ensemble | MemberUnavailable) -> OutputPair:
        lite = (
            pair
            if isinstance(pair, LiteEncoder)
            else load_lite(device=self._config.device, announce=self._announce)
        )
        minilm = lite.minilm if isinstance(ensemble, MemberUnavailable) else ensemble.minilm
        return OutputPair(minilm, lite)

    def _ensemble(self, version: OpenIndex, pair: DualEncoder) -> Ensemble | MemberUnavailable:
        """The members that vote; where they cannot, the reason, which whoever asks for them is told."""
        config = self._config
        try:
            return load_ensemble(
                self._recipe,
                version,
                pair,
                degrade=config.degrade,
                device=config.device,
                offline=config.offline,
                announce=self._announce,
            )
        except MemberUnavailable as error:
            _LOG.warning(
                "the members cannot vote", extra={"event": "no-ensemble", "member": error.name}
            )
            self._announce(f"The members of blend config {self._recipe.name} cannot vote: {error}")
            return error
