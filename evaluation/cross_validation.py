"""Ask every member about every pair out of fold, then print the prompts of each fold's blend."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import msgspec

from imprompt.core.protocols import DualEncoder, Progress
from imprompt.core.values import Vectors
from imprompt.encoders.lite import LiteEncoder, load_lite
from imprompt.encoders.lite_head import features
from imprompt.ensemble.blend_config import BlendConfig, KnnSettings
from imprompt.ensemble.ensemble import EnsemblePrediction
from imprompt.ensemble.training.head_training import activations, main_kind, make_examples
from imprompt.evaluation.blend_statistics import BlendStatistics
from imprompt.evaluation.cached_members import CachedLite, CachedTrunk
from imprompt.evaluation.member_cache import BlockOutputs, MemberCache, is_plain_knn, uses_lite_head
from imprompt.evaluation.nested_cv import FoldInputs, Heads, refit_heads
from imprompt.evaluation.pair_set import PairSet
from imprompt.evaluation.retrieval_metrics import RetrievalScores

GRID_K = (30, 100, 200)
GRID_POWER = (0.0, 6.0, 12.0, 24.0)
GRID_FLOOR = (-1.0, 0.3, 0.4, 0.5)


def knn_grid(blend_config: BlendConfig) -> tuple[KnnSettings, ...]:
    """Return the knn settings to choose from, first those of the blend config.

    Only those if knn has no weight or reads more than the index, such as captions.
    """
    given = blend_config.knn
    if blend_config.weights.get("knn", 0) <= 0 or not is_plain_knn(given):
        return (given,)
    grid = [
        msgspec.structs.replace(given, k=k, power=power, floor=floor)
        for k, power, floor in product(GRID_K, GRID_POWER, GRID_FLOOR)
    ]
    return (given, *(setting for setting in grid if setting != given))


def cached_lite(
    blend_config: BlendConfig,
    encoder: DualEncoder,
    pairs: PairSet,
    *,
    cache: Path,
    progress: Progress,
) -> CachedLite | None:
    """Return `lite` over cached trunk activations of the pairs, or None if nothing uses it."""
    if isinstance(encoder, LiteEncoder):
        lite = encoder
    elif uses_lite_head(blend_config):
        lite = load_lite()
    else:
        return None
    seen = activations(pairs.taught, cache=cache, progress=progress)
    return CachedLite(lite, {name: CachedTrunk(part) for name, part in seen.items()})


def lite_heads(lite: CachedLite, pairs: PairSet, *, progress: Progress) -> Heads:
    """Train the head of `lite` without each fold and each two folds.

    Raises:
        CorpusError: too few pairs are left to train on.
    """
    constants = lite.head
    seen = {name: trunk.cached for name, trunk in lite.trunks.items()}
    examples = make_examples(
        pairs.taught, features(seen, constants.class_vectors), minilm=lite.minilm, progress=progress
    )
    return refit_heads(
        pairs, examples, main_kind=main_kind(pairs.taught), constants=constants, progress=progress
    )


def collect_statistics(
    members: MemberCache, pairs: PairSet, true_vectors: Vectors, *, progress: Progress
) -> tuple[FoldInputs, RetrievalScores]:
    """Ask all members about every row, under the heads without its fold and without it and another.

    Args:
        true_vectors: (n, dim) the true prompts in the index space.
    """
    folds = range(pairs.n_folds)
    shape = (len(members.settings), len(pairs), len(members.names))
    outer = BlendStatistics.empty(*shape)
    # Without refitted heads no answer depends on the folds, so one table serves all of them.
    inner = [BlendStatistics.empty(*shape) if members.heads else outer for _ in folds]
    retrieval = RetrievalScores.empty(true_vectors, k=members.k)
    with progress.start("Asking the members", len(pairs)) as task:
        for fold in folds:
            tables = {_left_out(members, fold): outer}
            if members.heads:
                tables |= {
                    frozenset({fold, other}): inner[other] for other in folds if other != fold
                }
            for left_out, outputs in members.outputs(pairs.of_fold(fold), list(tables)):
                _put(tables[left_out], outputs, members.names, pairs.truth)
                if tables[left_out] is outer:
                    retrieval.put(outputs)
                    task.advance(len(outputs.rows))
    return FoldInputs(outer, tuple(inner)), retrieval


def predict_prompts(
    members: MemberCache,
    pairs: PairSet,
    blend_configs: Sequence[BlendConfig],
    *,
    progress: Progress,
) -> list[EnsemblePrediction]:
    """Predict each pair by the blend config of its fold and a head without that fold."""
    predictions: dict[int, EnsemblePrediction] = {}
    with progress.start("Choosing prompts", len(pairs)) as task:
        for fold, blend_config in enumerate(blend_configs):
            for rows, block in members.predictions(
                blend_config, pairs.of_fold(fold), _left_out(members, fold)
            ):
                predictions |= dict(zip(rows.tolist(), block, strict=True))
                task.advance(len(rows))
    return [predictions[row] for row in range(len(pairs))]


def _left_out(members: MemberCache, fold: int) -> frozenset[int]:
    return frozenset({fold}) if members.heads else frozenset()


def _put(
    table: BlendStatistics, outputs: BlockOutputs, names: Sequence[str], truth: Vectors
) -> None:
    for setting in range(len(table.truth)):
        contributions = [
            outputs.knn[setting] if name == "knn" else outputs.contributions[name] for name in names
        ]
        table.put(setting, outputs.rows, contributions, truth[outputs.rows])
