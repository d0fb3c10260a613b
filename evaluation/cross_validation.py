"""All questions of a study: every member about every pair under every head, and then the words of the answers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from imprompt.core.metrics import row_cosines
from imprompt.core.protocols import DualEncoder, Progress
from imprompt.core.values import Vectors
from imprompt.encoders.lite import LiteEncoder, load_lite
from imprompt.encoders.lite_head import features
from imprompt.ensemble.blend_config import BlendConfig, KnnSettings
from imprompt.ensemble.ensemble import EnsemblePrediction
from imprompt.ensemble.training.head_training import activations, main_kind, make_examples
from imprompt.evaluation.blend_statistics import BlendStatistics
from imprompt.evaluation.cached_members import CachedLite, CachedTrunk
from imprompt.evaluation.heads import Heads, refit_heads
from imprompt.evaluation.member_cache import Look, MemberCache, reads_the_index_alone, takes_lite
from imprompt.evaluation.nested_cv import FoldInputs
from imprompt.evaluation.pair_set import PairSet
from imprompt.evaluation.retrieval import Retrieved

GRID_K = (30, 100, 200)
GRID_POWER = (0.0, 6.0, 12.0, 24.0)
GRID_FLOOR = (-1.0, 0.3, 0.4, 0.5)
_NO_FOLDS: frozenset[int] = frozenset()


def knn_grid(blend_config: BlendConfig) -> tuple[KnnSettings, ...]:
    """The blend config's own settings of knn first, then those to choose from; only its own where knn has no vote or reads more than
    the index, such as captions."""
    if blend_config.weights.get("knn", 0) <= 0 or not reads_the_index_alone(blend_config.knn):
        return (blend_config.knn,)
    grid = [
        msgspec.structs.replace(blend_config.knn, k=k, power=power, floor=floor)
        for k, power, floor in product(GRID_K, GRID_POWER, GRID_FLOOR)
    ]
    return (blend_config.knn, *(setting for setting in grid if setting != blend_config.knn))


def lite_of(
    blend_config: BlendConfig, pair: DualEncoder, rows: PairSet, *, cache: Path, progress: Progress
) -> CachedLite | None:
    """`lite` over what its trunks see in the pairs; None where nobody looks through it."""
    if not (isinstance(pair, LiteEncoder) or takes_lite(blend_config)):
        return None
    lite = pair if isinstance(pair, LiteEncoder) else load_lite()
    seen = activations(rows.rows, cache=cache, progress=progress)
    return CachedLite(lite, {name: CachedTrunk(part) for name, part in seen.items()})


def heads_of(lite: CachedLite, pairs: PairSet, *, progress: Progress) -> Heads:
    """The head of `lite`, trained again for every set of folds that is left out."""
    constants = lite.head
    seen = {name: trunk.cached for name, trunk in lite.trunks.items()}
    examples = make_examples(
        pairs.rows, features(seen, constants.class_vectors), minilm=lite.minilm, progress=progress
    )
    return refit_heads(
        pairs, examples, main_kind=main_kind(pairs.rows), constants=constants, progress=progress
    )


def ask_all(
    panel: MemberCache, pairs: PairSet, true_rows: Vectors, *, progress: Progress
) -> tuple[FoldInputs, Retrieved]:
    """Every row under the head without its fold, and under those without its fold and another one.

    Args:
        true_rows: (n, dim) the true prompts in the index space.
    """
    folds = range(pairs.n_folds)
    shape = (len(panel.settings), len(pairs), len(panel.names))
    outer = BlendStatistics.empty(*shape)
    inner = [BlendStatistics.empty(*shape) for _ in folds] if panel.heads else [outer] * len(folds)
    retrieved = Retrieved.empty(true_rows, k=panel.k)
    with progress.start("Asking the members", len(pairs)) as task:
        for fold in folds:
            own = _left_out(panel, fold)
            beside = (
                {frozenset({fold, other}): other for other in folds if other != fold}
                if panel.heads
                else {}
            )
            for left_out, look in panel.looks(pairs.of_fold(fold), [own, *beside]):
                _fill(
                    inner[beside[left_out]] if left_out in beside else outer,
                    look,
                    panel.names,
                    pairs.truth,
                )
                if left_out == own:
                    retrieved.put(look)
                    task.advance(len(look.rows))
    return FoldInputs(outer, tuple(inner)), retrieved


def ask_for_words(
    panel: MemberCache, pairs: PairSet, blend_configs: Sequence[BlendConfig], *, progress: Progress
) -> list[EnsemblePrediction]:
    """What would be printed for each pair, by the blend config of its fold and a head without it."""
    found: dict[int, EnsemblePrediction] = {}
    with progress.start("Choosing words", len(pairs)) as task:
        for fold, blend_config in enumerate(blend_configs):
            for block, predictions in panel.predictions(
                blend_config, pairs.of_fold(fold), _left_out(panel, fold)
            ):
                found |= dict(zip(block.tolist(), predictions, strict=True))
                task.advance(len(block))
    return [found[row] for row in range(len(pairs))]


def printed_scores(
    panel: MemberCache, pairs: PairSet, predictions: Sequence[EnsemblePrediction]
) -> NDArray[np.float32]:
    """(n,) cosine of each printed prompt with the truth."""
    texts = sorted({prediction.prompt for prediction in predictions})
    position = {text: number for number, text in enumerate(texts)}
    vectors = panel.minilm.encode(texts)
    return row_cosines(
        vectors[[position[prediction.prompt] for prediction in predictions]], pairs.truth
    )


def _left_out(panel: MemberCache, fold: int) -> frozenset[int]:
    return frozenset({fold}) if panel.heads else _NO_FOLDS


def _fill(tallies: BlendStatistics, look: Look, names: Sequence[str], truth: Vectors) -> None:
    for setting in range(len(tallies.truth)):
        contributions = [
            look.knn[setting] if name == "knn" else look.contributions[name] for name in names
        ]
        tallies.put(setting, look.rows, contributions, truth[look.rows])
