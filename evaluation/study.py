"""A study of the pairs: what `evaluate` reports and `fit-weights` writes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from imprompt.core.errors import ConfigError
from imprompt.core.hub.fetch import Announce, silent
from imprompt.core.metrics import row_cosines
from imprompt.core.progress import SILENT
from imprompt.core.protocols import DualEncoder, Progress
from imprompt.core.settings import settings
from imprompt.core.values import EncoderSpec, Vectors
from imprompt.encoders.registry import output_encoder
from imprompt.ensemble.blend import shares
from imprompt.ensemble.blend_config import BlendConfig, KnnSettings, check_blend_config
from imprompt.ensemble.ensemble import EnsemblePrediction
from imprompt.evaluation.blend_statistics import Choice, fit
from imprompt.evaluation.calibration import Calibrated, calibrate
from imprompt.evaluation.cross_validation import (
    cached_lite,
    collect_statistics,
    knn_grid,
    lite_heads,
    predict_prompts,
)
from imprompt.evaluation.member_cache import MemberCache
from imprompt.evaluation.nested_cv import (
    CONSTANT,
    GIVEN,
    PRINTED,
    Scores,
    constant_vectors,
    fit_folds,
    given_scores,
)
from imprompt.evaluation.pair_set import PairSet, load_pair_set
from imprompt.evaluation.prompt_quality import text_quality, text_rows, vector_quality
from imprompt.evaluation.report import (
    FoldChoice,
    PromptQuality,
    Report,
    answer_order,
    best_member,
    make_gains,
    make_slices,
)
from imprompt.evaluation.retrieval_metrics import RetrievalScores

if TYPE_CHECKING:
    from imprompt.store.open_index import OpenIndex

N_FOLDS = 5
NEAREST = "nearest prompt of the search"
_LEAST_FOLDS = 3
_GIVEN_SETTING = 0  # `knn_grid` puts the settings of the blend config first


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a study.

    `refit_head`: train the head of `lite` again for every fold; False keeps the head, which is
    honest only if it was not trained on these pairs. Weights and settings are always fitted for
    every fold. `train_pairs`: files of more pairs for that training. `n_folds`: at least 3, since a
    fold's weights are fitted on the others. `cache`: the folder of the trunks' activations, by
    default the user's cache folder.
    """

    refit_head: bool = True
    train_pairs: tuple[Path, ...] = ()
    n_folds: int = N_FOLDS
    cache: Path | None = None
    device: str = "auto"
    offline: bool = False
    announce: Announce = silent
    progress: Progress = SILENT


@dataclass(frozen=True, slots=True)
class Study:
    """The results of a study, all out of fold; the head of `lite` only if `head_refitted`.

    `names`: the members. `blend_config`: the given one; `best`: the one fitted on all pairs of the
    main kind. `scores`: (n,) cosines by answer. `predictions`: one for each pair, by the blend
    config of its fold. `quality`: of the prompts as texts. `choices`: the fit of each fold; they
    number the knn `settings`. `spec`: the index's encoder. `removed`: prompts of the corpus left
    out as true texts of the pairs.
    """

    pairs: PairSet
    names: tuple[str, ...]
    blend_config: BlendConfig
    best: BlendConfig
    head_refitted: bool
    uses_lite: bool
    scores: Scores
    predictions: tuple[EnsemblePrediction, ...]
    quality: tuple[PromptQuality, ...]
    choices: tuple[Choice, ...]
    settings: tuple[KnnSettings, ...]
    retrieval: RetrievalScores
    calibrated: Calibrated | None
    corpus_rows: int
    removed: int
    spec: EncoderSpec
    seconds: float


def run_study(
    pairs_file: Path,
    blend_config: BlendConfig,
    version: OpenIndex,
    encoder: DualEncoder,
    options: Options,
) -> Study:
    """Answer every pair by the members of a blend config, out of fold, and score the answers.

    Args:
        pairs_file: a Parquet file, see `imprompt.ensemble.training.pairs.read_pairs`.
        blend_config: names the members; its weights and knn settings are scored beside fitted ones.
        version: stays open; the true texts are left out of its corpus.
        encoder: the version's encoder.

    Raises:
        ConfigError: fewer than 3 folds, or the blend config is invalid.
        CorpusError: the pairs cannot be used.
        MemberUnavailable: a member of the blend config cannot be loaded or fails.
    """
    start = time.monotonic()
    check_blend_config(blend_config)
    if options.n_folds < _LEAST_FOLDS:
        raise ConfigError(
            f"{options.n_folds} folds are too few.", hint=f"Use {_LEAST_FOLDS} or more."
        )
    minilm = output_encoder(encoder, device=options.device, announce=options.announce)
    pairs = load_pair_set(
        pairs_file,
        minilm=minilm,
        n_folds=options.n_folds,
        progress=options.progress,
        extra=options.train_pairs if options.refit_head else (),
    )
    # Encoded right after the pair set, while MiniLM still has these texts in its cache.
    true_vectors = encoder.texts.encode([row.texts[0] for row in pairs.rows])
    members = _open_members(blend_config, version, encoder, pairs, options)
    return _measure(
        blend_config,
        members,
        pairs,
        true_vectors,
        spec=encoder.spec,
        start=start,
        progress=options.progress,
    )


def fitted_blend_config(study: Study, *, name: str) -> BlendConfig:
    """Return the blend config fitted on all pairs of the main kind, with its calibration if any."""
    calibrations = (study.calibrated.calibration,) if study.calibrated else ()
    return msgspec.structs.replace(study.best, name=name, calibrations=calibrations)


def make_report(study: Study) -> Report:
    """Return all figures of a study, with their intervals."""
    pairs = study.pairs
    scores = {name: study.scores[name] for name in answer_order(study.names, study.scores)}
    return Report(
        pairs=len(pairs),
        groups=len(np.unique(pairs.groups)),
        folds=pairs.n_folds,
        main_kind=pairs.rows[int(pairs.main_rows[0])].kind or "all",
        encoder=study.spec.name,
        corpus_rows=study.corpus_rows,
        removed=study.removed,
        blend_config=study.blend_config.name,
        out_of_fold=_out_of_fold(study),
        slices=make_slices(scores, pairs),
        gains=make_gains(scores, pairs, study.names) if len(study.names) > 1 else (),
        best_member=best_member(scores, study.names, pairs.main_rows),
        prompts=study.quality,
        recall=study.retrieval.recall(pairs),
        planted=study.retrieval.planted(pairs),
        fold_choices=tuple(_fold_choice(study, choice) for choice in study.choices),
        calibration=study.calibrated.report if study.calibrated else None,
        failed=tuple((str(path), error.reason) for path, error in pairs.failed),
        seconds=round(study.seconds, 1),
    )


def _open_members(
    blend_config: BlendConfig,
    version: OpenIndex,
    encoder: DualEncoder,
    pairs: PairSet,
    options: Options,
) -> MemberCache:
    progress = options.progress
    cache = options.cache or settings().cache
    lite = cached_lite(blend_config, encoder, pairs, cache=cache, progress=progress)
    heads = {}
    if lite is not None and options.refit_head:
        heads = lite_heads(lite, pairs, progress=progress)
    return MemberCache(
        blend_config,
        version,
        encoder,
        settings=knn_grid(blend_config),
        rows=pairs.rows,
        lite=lite,
        heads=heads,
        device=options.device,
        offline=options.offline,
        announce=options.announce,
    )


def _measure(
    blend_config: BlendConfig,
    members: MemberCache,
    pairs: PairSet,
    true_vectors: Vectors,
    *,
    spec: EncoderSpec,
    start: float,
    progress: Progress,
) -> Study:
    names, knn_settings = tuple(members.names), tuple(members.settings)
    inputs, retrieval = collect_statistics(members, pairs, true_vectors, progress=progress)
    fitted = fit_folds(inputs, pairs, names)
    blend_configs = [
        _with_fit(blend_config, choice, names, knn_settings) for choice in fitted.choices
    ]
    predictions = predict_prompts(members, pairs, blend_configs, progress=progress)
    prompts = [prediction.prompt for prediction in predictions]
    nearest = members.prompts(retrieval.nearest)
    constant, rows = constant_vectors(pairs), text_rows(prompts, members.minilm)
    printed = row_cosines(rows, pairs.truth)
    given = given_scores(inputs.outer, names, shares(blend_config.weights), setting=_GIVEN_SETTING)
    best = fit(inputs.outer, pairs.main_rows, members=range(len(names)))
    features = [prediction.confidence_features for prediction in predictions]
    return Study(
        pairs=pairs,
        names=names,
        blend_config=blend_config,
        best=_with_fit(blend_config, best, names, knn_settings),
        head_refitted=bool(members.heads),
        uses_lite=members.lite is not None,
        scores=fitted.scores
        | {CONSTANT: row_cosines(constant, pairs.truth), GIVEN: given, PRINTED: printed},
        predictions=tuple(predictions),
        quality=(
            vector_quality(CONSTANT, constant, pairs),
            text_quality(NEAREST, nearest, text_rows(nearest, members.minilm), pairs),
            text_quality(PRINTED, prompts, rows, pairs),
        ),
        choices=fitted.choices,
        settings=knn_settings,
        retrieval=retrieval,
        calibrated=calibrate(features, printed, pairs, spec=spec, corpus_rows=members.corpus_rows),
        corpus_rows=members.corpus_rows,
        removed=members.removed,
        spec=spec,
        seconds=time.monotonic() - start,
    )


def _weights(names: Sequence[str], choice: Choice) -> dict[str, float]:
    return {name: round(float(share), 4) for name, share in zip(names, choice.shares, strict=True)}


def _with_fit(
    given: BlendConfig, choice: Choice, names: Sequence[str], knn_settings: Sequence[KnnSettings]
) -> BlendConfig:
    """Return the blend config with fitted weights and settings; its calibrations no longer hold."""
    weights = {name: weight for name, weight in _weights(names, choice).items() if weight > 0}
    return msgspec.structs.replace(
        given, weights=weights, knn=knn_settings[choice.setting], calibrations=()
    )


def _fold_choice(study: Study, choice: Choice) -> FoldChoice:
    knn = study.settings[choice.setting]
    return FoldChoice(_weights(study.names, choice), knn.k, knn.power, knn.floor)


def _out_of_fold(study: Study) -> tuple[tuple[str, str], ...]:
    """Return (part, origin) in words, for each part that learned from pairs."""
    as_is = "used as is: its figures hold only if it was not trained on these pairs"
    on_main = "" if study.pairs.is_main.all() else ", on pairs of the main kind"
    head = "not used"
    if study.uses_lite:
        head = as_is
        if study.head_refitted:
            head = "out of fold: trained again without each fold's groups"
    confidence = "not calibrated: too few cases"
    if study.calibrated:
        confidence = f"out of fold: fitted without each fold's groups{on_main}"
    vit = study.blend_config.sources.get("vit")
    return (
        ("head of lite", head),
        *([(f"vit from {vit}", as_is)] if vit is not None else []),
        (
            "weights, and k, power and floor of knn",
            f"out of fold: fitted again without each fold's groups{on_main}",
        ),
        (GIVEN, "its weights are those given, which may have been fitted on these pairs"),
        ("corpus", f"without the {study.removed:,} prompts in it that are true texts of the pairs"),
        ("confidence", confidence),
    )
