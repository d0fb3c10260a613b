"""A study of the pairs: every answer out of fold, then what `evaluate` reports and what `fit-weights` writes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from imprompt.core.errors import ConfigError
from imprompt.core.hub.fetch import Announce, silent
from imprompt.core.progress import Silent
from imprompt.core.protocols import DualEncoder, Progress
from imprompt.core.settings import settings
from imprompt.core.values import EncoderSpec
from imprompt.encoders.registry import output_encoder
from imprompt.ensemble.blend import shares
from imprompt.ensemble.blend_config import BlendConfig, KnnSettings, check_blend_config
from imprompt.ensemble.ensemble import EnsemblePrediction
from imprompt.evaluation.blend_statistics import Choice, fit
from imprompt.evaluation.calibration import Calibrated, calibrate
from imprompt.evaluation.cross_validation import (
    ask_all,
    ask_for_words,
    heads_of,
    knn_grid,
    lite_of,
    printed_scores,
)
from imprompt.evaluation.member_cache import MemberCache
from imprompt.evaluation.nested_cv import (
    CONSTANT,
    GIVEN,
    PRINTED,
    Scores,
    as_given,
    constant_scores,
    fit_folds,
)
from imprompt.evaluation.pair_set import PairSet, load_pair_set
from imprompt.evaluation.retrieval import Retrieved

if TYPE_CHECKING:
    from imprompt.store.open_index import OpenIndex

N_FOLDS = 5
_LEAST_FOLDS = 3
_GIVEN_SETTING = 0


@dataclass(frozen=True, slots=True)
class Options:
    """How a study is done.

    `refit_head`: train the head of `lite` again for every fold, so that no answer has seen its
        pair; False takes it as it is, which
    is honest only where it was not trained on these pairs. Weights and settings are fitted for
    every fold in any case. `n_folds` is at least 3, since a fold's weights are fitted on the
    others. What the trunks of `lite` see is kept in `cache`, by default the user's cache folder.
    """

    refit_head: bool = True
    n_folds: int = N_FOLDS
    cache: Path | None = None
    device: str = "auto"
    offline: bool = False
    announce: Announce = silent
    progress: Progress = field(default_factory=Silent)


@dataclass(frozen=True, slots=True)
class Study:
    """What was found, out of fold; the head of `lite` too where `head_refitted`.

    `names` are the members; `scores` (n,) cosines by answer; `predictions` of the blend, one a pair,
    by the blend config of its fold; `choices` what was fitted for each fold, their settings of knn
    numbered as in `settings`. `blend config` is the given one, `best` the one fitted on all pairs of the
    main kind, `spec` the index's encoder.
    """

    pairs: PairSet
    names: tuple[str, ...]
    blend_config: BlendConfig
    best: BlendConfig
    head_refitted: bool
    uses_lite: bool
    scores: Scores
    predictions: tuple[EnsemblePrediction, ...]
    choices: tuple[Choice, ...]
    settings: tuple[KnnSettings, ...]
    retrieved: Retrieved
    calibrated: Calibrated | None
    corpus_rows: int
    removed: int
    spec: EncoderSpec
    seconds: float


def run_study(
    pairs_file: Path,
    blend_config: BlendConfig,
    version: OpenIndex,
    pair: DualEncoder,
    options: Options,
) -> Study:
    """Let the members of a blend config answer every pair, and measure the answers.

    Args:
        pairs_file: a Parquet file, as `train` takes it.
        blend_config: names the members; its weights and settings of knn are measured as they are, beside
            fitted ones.
        version: stays open; the true texts are taken out of its corpus.
        pair: the version's encoder.

    Raises:
        ConfigError: fewer than 3 folds, or the blend config cannot be used.
        CorpusError: the pairs cannot be used.
        MemberUnavailable: a member of the blend config cannot vote.
    """
    begun = time.monotonic()
    check_blend_config(blend_config)
    if options.n_folds < _LEAST_FOLDS:
        raise ConfigError(
            f"{options.n_folds} folds are too few.", hint=f"Take {_LEAST_FOLDS} or more."
        )
    minilm = output_encoder(pair, device=options.device, announce=options.announce)
    pairs = load_pair_set(
        pairs_file, minilm=minilm, n_folds=options.n_folds, progress=options.progress
    )
    true_rows = pair.texts.encode(
        [row.texts[0] for row in pairs.rows]
    )  # at once, while MiniLM remembers them
    panel = _panel(blend_config, version, pair, pairs, options)
    sheet, retrieved = ask_all(panel, pairs, true_rows, progress=options.progress)
    given = as_given(sheet.outer, panel.names, shares(blend_config.weights), setting=_GIVEN_SETTING)
    fitted = fit_folds(sheet, pairs, panel.names)
    blend_configs = [_fitted(blend_config, panel, choice) for choice in fitted.choices]
    predictions = ask_for_words(panel, pairs, blend_configs, progress=options.progress)
    printed = printed_scores(panel, pairs, predictions)
    final = fit(sheet.outer, np.flatnonzero(pairs.fitted_on), members=range(len(panel.names)))
    rows = version.manifest.rows
    return Study(
        pairs=pairs,
        names=tuple(panel.names),
        blend_config=blend_config,
        best=_fitted(blend_config, panel, final),
        head_refitted=bool(panel.heads),
        uses_lite=panel.lite is not None,
        scores=fitted.scores | {CONSTANT: constant_scores(pairs), GIVEN: given, PRINTED: printed},
        predictions=tuple(predictions),
        choices=fitted.choices,
        settings=tuple(panel.settings),
        retrieved=retrieved,
        calibrated=calibrate(
            [prediction.confidence_features for prediction in predictions],
            printed,
            pairs,
            spec=pair.spec,
            corpus_rows=rows,
        ),
        corpus_rows=rows,
        removed=panel.removed,
        spec=pair.spec,
        seconds=time.monotonic() - begun,
    )


def fitted_blend_config(study: Study, *, name: str) -> BlendConfig:
    """The blend config fitted on all pairs of the main kind, calibrated for the index where there was enough to calibrate on."""
    calibrations = (study.calibrated.calibration,) if study.calibrated else ()
    return msgspec.structs.replace(study.best, name=name, calibrations=calibrations)


def _panel(
    blend_config: BlendConfig,
    version: OpenIndex,
    pair: DualEncoder,
    pairs: PairSet,
    options: Options,
) -> MemberCache:
    lite = lite_of(
        blend_config,
        pair,
        pairs,
        cache=options.cache or settings().cache,
        progress=options.progress,
    )
    return MemberCache(
        blend_config,
        version,
        pair,
        settings=knn_grid(blend_config),
        rows=pairs.rows,
        lite=lite,
        heads=heads_of(lite, pairs, progress=options.progress)
        if options.refit_head and lite is not None
        else {},
        device=options.device,
        offline=options.offline,
        announce=options.announce,
    )


def _fitted(given: BlendConfig, panel: MemberCache, choice: Choice) -> BlendConfig:
    """The given blend config with fitted weights and settings; what it was calibrated for no longer holds."""
    weights = {
        name: round(float(share), 4)
        for name, share in zip(panel.names, choice.shares, strict=True)
        if share > 0
    }
    return msgspec.structs.replace(
        given, weights=weights, knn=panel.settings[choice.setting], calibrations=()
    )
