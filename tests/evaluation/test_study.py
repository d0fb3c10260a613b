"""Whole studies of a small index: leaks show, true texts are left out, the report is true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from imprompt.core.errors import ConfigError
from imprompt.encoders.lite import LiteEncoder
from imprompt.ensemble.blend_config import check_blend_config, load_blend_config
from imprompt.evaluation.nested_cv import BLEND, CONSTANT, GIVEN, PRINTED
from imprompt.evaluation.study import Options, Study, fitted_blend_config, make_report, run_study
from imprompt.store.index_version import open_version
from tests.evaluation.worlds import BLEND_CONFIG


def test_a_leak_shows(
    pairs_file: Path, index: Path, memorising: LiteEncoder, cache: Path, honest: Study
) -> None:
    """The head has memorized its pairs; out of fold, on noise, it is no better than a constant."""
    with open_version(index) as version:
        leaking = run_study(
            pairs_file, BLEND_CONFIG, version, memorising, Options(refit_head=False, cache=cache)
        )
    assert leaking.scores["vit"].mean() > 0.7
    assert leaking.scores[BLEND].mean() > honest.scores[BLEND].mean() + 0.2
    assert honest.scores["vit"].mean() < honest.scores[CONSTANT].mean() + 0.05
    origins = dict(make_report(leaking).out_of_fold)
    assert "only if it was not trained on these pairs" in origins["head of lite"]
    assert dict(make_report(honest).out_of_fold)["head of lite"].startswith("out of fold")


def test_true_texts_are_not_in_the_corpus(honest: Study, index: Path) -> None:
    """Two prompts of the index are true texts; nobody's answer is composed of one."""
    assert honest.removed == 2
    with open_version(index) as version:
        prompts = version.prompts.get_many(range(version.manifest.rows))
    truths = {row.texts[0] for row in honest.pairs.rows}
    removed = {prompt.row_id for prompt in prompts if prompt.text in truths}
    assert len(removed) == 2
    used = {
        row_id
        for prediction in honest.predictions
        for phrase in (*prediction.phrases, *prediction.shared)
        for row_id in phrase.row_ids
    }
    assert len(used) > 2
    assert not used & removed


def test_folds_do_not_share_groups(honest: Study) -> None:
    """Every row is tested once, and near duplicates together."""
    for group in np.unique(honest.pairs.groups):
        assert len(np.unique(honest.pairs.folds[honest.pairs.groups == group])) == 1


def test_the_words_belong_to_the_blend(honest: Study) -> None:
    """The ensemble under each fold's blend config gives the blend scored from the statistics."""
    answered = np.array(
        [
            prediction.vector @ truth
            for prediction, truth in zip(honest.predictions, honest.pairs.truth, strict=True)
        ]
    )
    assert answered == pytest.approx(honest.scores[BLEND], abs=1e-4)


def test_the_report_has_every_answer(honest: Study) -> None:
    """All slices, the constant beside every score, the photographs apart."""
    report = make_report(honest)
    names = [score.answer for score in report.slices[0].scores]
    assert names == [
        CONSTANT,
        *honest.names,
        *(f"without {name}" for name in honest.names),
        GIVEN,
        BLEND,
        PRINTED,
    ]
    assert {(part.by, part.name) for part in report.slices} >= {
        ("all", "all"),
        ("kind", "photo"),
        ("generator", "maker 1"),
    }
    assert sum(part.n for part in report.slices if part.by == "kind") == report.pairs == 40
    assert report.main_kind == "generated"
    assert all(0 <= found.share.mean <= 1 for found in report.recall)
    assert len(report.fold_choices) == 5
    for gain in report.gains:
        assert ("does not earn its place" in gain.words) == (gain.difference.low <= 0)


def test_the_fitted_recipe_can_be_used(honest: Study) -> None:
    """Its weights are on the simplex; forty pairs are too few to calibrate on."""
    blend_config = fitted_blend_config(honest, name="mine")
    check_blend_config(blend_config)
    assert sum(blend_config.weights.values()) == pytest.approx(1)
    assert blend_config.calibrations == ()


def test_two_folds_are_refused(pairs_file: Path, index: Path, memorising: LiteEncoder) -> None:
    """The weights of one fold could not be fitted out of fold."""
    with open_version(index) as version, pytest.raises(ConfigError, match="too few"):
        run_study(pairs_file, load_blend_config("default"), version, memorising, Options(n_folds=2))
