"""The members under study: asked about every pair under many heads, with cached towers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from imprompt.core.hub.fetch import Announce
from imprompt.core.protocols import DualEncoder, EnsembleMember, TextEncoder
from imprompt.core.values import Ids, Selection, Vectors, prompt_key
from imprompt.encoders.lite import LiteEncoder
from imprompt.encoders.registry import output_encoder
from imprompt.ensemble.blend_config import BlendConfig, KnnSettings
from imprompt.ensemble.ensemble import EnsemblePrediction, predict_in_memory
from imprompt.ensemble.knn import regress
from imprompt.ensemble.members import load_ensemble
from imprompt.ensemble.model_members import Regressor
from imprompt.ensemble.neighbourhood import Surroundings
from imprompt.ensemble.training.pairs import Pair
from imprompt.evaluation.cached_members import (
    CachedLite,
    PairPicture,
    RowCachedMember,
    cached_by_row,
    pair_pictures,
)
from imprompt.evaluation.nested_cv import Heads
from imprompt.images.decode import ENOUGH_PX, open_image
from imprompt.retriever.filters import PassingPrompts

if TYPE_CHECKING:
    from PIL.Image import Image

    from imprompt.store.open_index import OpenIndex

_BLOCK_ROWS = 64
_HEAD_MEMBERS = frozenset({"knn", "vit", "interrogator"})
"""Members that see through the index's encoder or the head of `lite`, and so change with the head,
unless the blend config names another source for them."""


@dataclass(frozen=True, slots=True)
class BlockOutputs:
    """The outputs of the members for a block of rows, under one head.

    `contributions`: (len(rows), 384) unit rows by member, without knn. `knn`: the same of knn, one
    for each setting; empty if it is not a member.
    """

    rows: Ids
    surroundings: Surroundings
    contributions: dict[str, Vectors]
    knn: tuple[Vectors, ...]


class MemberCache:
    """The members of a blend config, over a corpus without the true texts of the pairs.

    Args:
        blend_config: names the members.
        version: stays open as long as this is used.
        encoder: the version's encoder.
        settings: of knn; it contributes under each of them.
        rows: the pairs.
        lite: `lite` over cached trunks if the index or `vit` uses it, else None.
        heads: by folds left out; empty to keep the head of `lite` itself.
        device, offline, announce: see `load_ensemble`.

    Raises:
        See `load_ensemble`.
    """

    def __init__(
        self,
        blend_config: BlendConfig,
        version: OpenIndex,
        encoder: DualEncoder,
        *,
        settings: Sequence[KnnSettings],
        rows: Sequence[Pair],
        lite: CachedLite | None,
        heads: Heads,
        device: str = "auto",
        offline: bool = False,
        announce: Announce,
    ) -> None:
        self.lite = lite
        self.heads = heads
        self.settings = settings
        self._version = version
        self._rows = rows
        self._device = device
        self._offline = offline
        self._allowed = corpus_without(version, rows)
        self._passing = PassingPrompts(Selection(self._allowed))
        self._encoder: DualEncoder
        if lite is not None and isinstance(encoder, LiteEncoder):
            self._encoder = lite
        else:
            self._encoder = cached_by_row(encoder)
        self.minilm: TextEncoder = (
            lite.minilm if lite is not None else output_encoder(encoder, device=device)
        )
        # One search serves every setting: the one with the largest k.
        largest_k = max(setting.k for setting in settings)
        knn = msgspec.structs.replace(blend_config.knn, k=largest_k)
        ready = (
            [Regressor(lite.images)] if lite is not None and uses_lite_head(blend_config) else []
        )
        self._ensemble = load_ensemble(
            msgspec.structs.replace(blend_config, knn=knn),
            version,
            self._encoder,
            device=device,
            offline=offline,
            announce=announce,
            passing=self._passing,
            ready=ready,
        )
        self._members = self._cached_members()

    @property
    def names(self) -> list[str]:
        """Return the members in the order of the statistics' columns."""
        return list(self._ensemble.shares)

    @property
    def k(self) -> int:
        """Return how many of the nearest prompts every block holds."""
        return self._ensemble.neighbourhood.k

    @property
    def corpus_rows(self) -> int:
        """Return the number of prompts of the whole corpus."""
        return self._version.manifest.rows

    @property
    def removed(self) -> int:
        """Return how many of them are left out as true texts of the pairs."""
        return self.corpus_rows - len(self._allowed)

    def prompts(self, row_ids: Ids) -> list[str]:
        """Return the prompts of these rows of the corpus, as they are shown."""
        return [prompt.shown for prompt in self._version.prompts.get_many(row_ids)]

    def outputs(
        self, rows: Ids, left_out: Sequence[frozenset[int]]
    ) -> Iterator[tuple[frozenset[int], BlockOutputs]]:
        """Yield (folds left out of the head's training, outputs), for every block under every head.

        Args:
            left_out: keys of `heads`; without heads they change nothing.
        """
        for block, pictures in self._blocks(rows):
            for folds in left_out:
                shown = self._show(pictures, block, folds)
                surroundings = self._ensemble.neighbourhood.surroundings(shown)
                contributions = {
                    name: predict_in_memory(member, shown).vectors
                    for name, member in self._members.items()
                    if name != "knn"
                }
                settings = self.settings if "knn" in self._members else ()
                knn = tuple(self._knn(shown, surroundings, setting) for setting in settings)
                yield folds, BlockOutputs(block, surroundings, contributions, knn)

    def predictions(
        self, blend_config: BlendConfig, rows: Ids, left_out: frozenset[int]
    ) -> Iterator[tuple[Ids, list[EnsemblePrediction]]]:
        """Yield (rows, answers of `query`) block by block, under one head."""
        ready = [member for name, member in self._members.items() if name != "knn"]
        ensemble = load_ensemble(
            blend_config,
            self._version,
            self._encoder,
            device=self._device,
            offline=self._offline,
            passing=self._passing,
            ready=ready,
        )
        for block, pictures in self._blocks(rows):
            yield block, ensemble.predict(self._show(pictures, block, left_out))

    def _blocks(self, rows: Ids) -> Iterator[tuple[Ids, list[Image]]]:
        for begin in range(0, len(rows), _BLOCK_ROWS):
            block = rows[begin : begin + _BLOCK_ROWS]
            yield block, [open_image(self._rows[row].image, enough_px=ENOUGH_PX) for row in block]

    def _show(
        self, pictures: Sequence[Image], rows: Ids, left_out: frozenset[int]
    ) -> list[PairPicture]:
        head = self.heads[left_out] if self.heads else None
        return pair_pictures(pictures, rows, head=head)

    def _knn(
        self, shown: Sequence[Image], surroundings: Surroundings, setting: KnnSettings
    ) -> Vectors:
        if not is_plain_knn(setting):
            return predict_in_memory(self._members["knn"], shown).vectors
        cosines = surroundings.hits.scores[:, : setting.k]
        vectors = surroundings.vectors[:, : setting.k]
        return regress(cosines, vectors, power=setting.power, floor=setting.floor)

    def _cached_members(self) -> dict[str, EnsembleMember]:
        """Return the members; those that no head changes predict each row once."""
        changing = {"knn"}
        if self.heads:
            changing |= _HEAD_MEMBERS - self._ensemble.blend_config.sources.keys()
        return {
            name: member if name in changing else RowCachedMember(member)
            for name, member in self._ensemble.members.items()
        }


def uses_lite_head(blend_config: BlendConfig) -> bool:
    """Return whether the member `vit` is the head of `lite`."""
    return blend_config.weights.get("vit", 0) > 0 and "vit" not in blend_config.sources


def is_plain_knn(setting: KnnSettings) -> bool:
    """Return whether only k, power and floor may differ from the defaults."""
    default = KnnSettings(k=setting.k, power=setting.power, floor=setting.floor)
    return setting == default


def corpus_without(version: OpenIndex, rows: Sequence[Pair]) -> Ids:
    """Return the row ids of a corpus without any text of the pairs, captions included."""
    keys = {prompt_key(text) for row in rows for text in row.texts}
    return np.setdiff1d(np.arange(version.manifest.rows), version.prompts.rows_of(keys))
