"""The ensemble under study: its members, asked about the pairs again and again, each time with a head that did not see them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from imprompt.core.hub.fetch import Announce
from imprompt.core.protocols import DualEncoder, EnsembleMember, TextEncoder
from imprompt.core.values import Ids, Vectors, prompt_key
from imprompt.encoders.lite import LiteEncoder
from imprompt.encoders.registry import output_encoder
from imprompt.ensemble.blend_config import BlendConfig, KnnSettings
from imprompt.ensemble.ensemble import Ensemble, EnsemblePrediction, predict_in_memory
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
from imprompt.evaluation.heads import Heads
from imprompt.images.decode import ENOUGH_PX, open_image

if TYPE_CHECKING:
    from PIL.Image import Image

    from imprompt.store.open_index import OpenIndex

_BLOCK_ROWS = 64
_OF_THE_PAIR = frozenset({"knn", "vit", "interrogator"})
"""Members that look through the index's encoder or the head of `lite`, and so change with the head, unless the blend config names
another source of theirs."""

_NOTHING: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of a block of rows:

    `around` them under one head, and what the members say, knn for each setting.
    """

    rows: Ids
    around: Surroundings
    contributions: dict[str, Vectors]
    knn: tuple[Vectors, ...]


class MemberCache:
    """The members of a blend config over one version, with the true texts of the pairs taken out of its corpus.

    Args:
        blend_config: whose members are asked.
        settings: of knn; its contributions are made under each.
        rows: the pairs.
        lite: trunks that have seen all rows, where `lite` sees for the index or for `vit`; else
            None.
        heads: by folds left out; none where the heads are to be taken as they are.

    Raises:
        as `load_ensemble`.
    """

    def __init__(
        self,
        blend_config: BlendConfig,
        version: OpenIndex,
        pair: DualEncoder,
        *,
        settings: Sequence[KnnSettings],
        rows: Sequence[Pair],
        lite: CachedLite | None,
        heads: Heads,
        device: str = "auto",
        offline: bool = False,
        announce: Announce,
    ) -> None:
        self._version = version
        self._rows = rows
        self.lite = lite
        self.heads = heads
        self._device = device
        self._offline = offline
        self.settings = settings
        self._allowed = corpus_without(version, rows)
        on_lite = isinstance(pair, LiteEncoder) and lite is not None
        self.pair: DualEncoder = lite if on_lite and lite is not None else cached_by_row(pair)
        self.minilm: TextEncoder = (
            lite.minilm if lite is not None else output_encoder(pair, device=device)
        )
        ready = [Regressor(lite.images)] if lite is not None and takes_lite(blend_config) else []
        widest = max(setting.k for setting in settings)
        whole = msgspec.structs.replace(
            blend_config, knn=blend_config_settings(blend_config, k=widest)
        )
        self._ensemble = load_ensemble(
            whole,
            version,
            self.pair,
            device=device,
            offline=offline,
            announce=announce,
            allowed=self._allowed,
            ready=ready,
        )
        self._members = self._lasting(self._ensemble)

    @property
    def names(self) -> list[str]:
        """The members, in the order of the columns of every tally."""
        return list(self._ensemble.shares)

    @property
    def k(self) -> int:
        """How many of the nearest prompts every look holds."""
        return self._ensemble.neighbourhood.k

    @property
    def removed(self) -> int:
        """How many prompts of the corpus were taken out because they are a true text of the pairs."""
        return self._version.manifest.rows - len(self._allowed)

    def looks(
        self, rows: Ids, left_out: Sequence[frozenset[int]]
    ) -> Iterator[tuple[frozenset[int], Look]]:
        """Every row under every head, block by block: (folds that the head has not seen, what was seen).

        Args:
            left_out: sets of folds that there is a head for; where heads are taken as they are, it
                makes no difference.
        """
        for block, pictures in self._blocks(rows):
            for folds in left_out:
                shown = self._show(pictures, block, folds)
                around = self._ensemble.neighbourhood.surroundings(shown)
                contributions = {
                    name: predict_in_memory(member, shown).vectors
                    for name, member in self._members.items()
                    if name != "knn"
                }
                knn = (
                    tuple(self._knn(shown, around, setting) for setting in self.settings)
                    if "knn" in self._members
                    else ()
                )
                yield folds, Look(block, around, contributions, knn)

    def predictions(
        self, blend_config: BlendConfig, rows: Ids, left_out: frozenset[int]
    ) -> Iterator[tuple[Ids, list[EnsemblePrediction]]]:
        """What `query --explain` would answer with this blend_config, block by block, under the head that has not seen these folds."""
        ready = [member for name, member in self._members.items() if name != "knn"]
        ensemble = load_ensemble(
            blend_config,
            self._version,
            self.pair,
            device=self._device,
            offline=self._offline,
            allowed=self._allowed,
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

    def _knn(self, shown: Sequence[Image], around: Surroundings, setting: KnnSettings) -> Vectors:
        if not reads_the_index_alone(setting):
            return predict_in_memory(self._members["knn"], shown).vectors
        cosines, vectors = around.hits.scores[:, : setting.k], around.vectors[:, : setting.k]
        return regress(cosines, vectors, power=setting.power, floor=setting.floor)

    def _lasting(self, ensemble: Ensemble) -> dict[str, EnsembleMember]:
        """The members; those that no head changes remember each row."""
        changing = {
            "knn",
            *(_OF_THE_PAIR - ensemble.blend_config.sources.keys() if self.heads else ()),
        }
        return {
            name: member if name in changing else RowCachedMember(member)
            for name, member in ensemble.members.items()
        }


def takes_lite(blend_config: BlendConfig) -> bool:
    """Whether its `vit` is the head of `lite`."""
    return blend_config.weights.get("vit", 0) > 0 and "vit" not in blend_config.sources


def reads_the_index_alone(setting: KnnSettings) -> bool:
    """Whether these settings differ from the usual ones in nothing but k, power and floor."""
    usual = KnnSettings()
    return (
        msgspec.structs.replace(setting, k=usual.k, power=usual.power, floor=usual.floor) == usual
    )


def blend_config_settings(blend_config: BlendConfig, *, k: int) -> KnnSettings:
    """The blend config's settings of knn with another k."""
    return msgspec.structs.replace(blend_config.knn, k=k)


def corpus_without(version: OpenIndex, rows: Sequence[Pair]) -> Ids:
    """The row ids of a corpus but for the texts of the pairs, all their captions included."""
    keys = {prompt_key(text) for row in rows for text in row.texts}
    return np.setdiff1d(np.arange(version.manifest.rows), version.prompts.rows_of(keys))
