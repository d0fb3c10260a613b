"""From a study to its report."""

from __future__ import annotations

import numpy as np

from imprompt.evaluation.calibration import CalibrationReport
from imprompt.evaluation.nested_cv import GIVEN
from imprompt.evaluation.report import (
    FoldChoice,
    Report,
    answer_order,
    best_member,
    make_gains,
    make_slices,
)
from imprompt.evaluation.study import Study


def make_report(study: Study) -> Report:
    """All figures of a study, with their intervals."""
    pairs = study.pairs
    main = np.flatnonzero(pairs.fitted_on)
    scores = {name: study.scores[name] for name in answer_order(study.names, study.scores)}
    kind = pairs.rows[int(main[0])].kind
    report: CalibrationReport | None = study.calibrated.report if study.calibrated else None
    return Report(
        pairs=len(pairs),
        groups=len(np.unique(pairs.groups)),
        folds=pairs.n_folds,
        main_kind=kind or "all",
        encoder=study.spec.name,
        corpus_rows=study.corpus_rows,
        removed=study.removed,
        blend_config=study.blend_config.name,
        out_of_fold=_out_of_fold(study),
        slices=make_slices(scores, pairs),
        gains=make_gains(scores, pairs, study.names) if len(study.names) > 1 else (),
        best_member=best_member(scores, study.names, main),
        recall=study.retrieved.recall(pairs),
        planted=study.retrieved.planted(pairs),
        fold_choices=_choices(study),
        calibration=report,
        failed=tuple((str(path), error.reason) for path, error in pairs.failed),
        seconds=round(study.seconds, 1),
    )


def _out_of_fold(study: Study) -> tuple[tuple[str, str], ...]:
    """What learned from pairs, and from which."""
    as_it_is = "as it is: its figures hold only if it was not trained on these pairs"
    refitted = (
        "out of fold: trained again without each fold's groups" if study.head_refitted else as_it_is
    )
    kind = "" if study.pairs.fitted_on.all() else ", on pairs of the main kind"
    confidence = (
        f"out of fold: fitted without each fold's groups{kind}"
        if study.calibrated
        else "not calibrated: too few cases"
    )
    trained = [
        (f"{name} from {source}", as_it_is)
        for name, source in study.blend_config.sources.items()
        if name == "vit"
    ]
    return (
        ("head of lite", refitted if study.uses_lite else "not used"),
        *trained,
        (
            "weights, and k, power and floor of knn",
            f"out of fold: fitted again without each fold's groups{kind}",
        ),
        (
            GIVEN,
            "its weights are those of the blend config, which may have been fitted on these pairs",
        ),
        (
            "corpus",
            f"without the {study.removed:,} prompts in it that are a true text of the pairs",
        ),
        ("confidence", confidence),
    )


def _choices(study: Study) -> tuple[FoldChoice, ...]:
    found = []
    for choice in study.choices:
        knn = study.settings[choice.setting]
        weights = {
            name: round(float(share), 4)
            for name, share in zip(study.names, choice.shares, strict=True)
        }
        found.append(FoldChoice(weights, knn.k, knn.power, knn.floor))
    return tuple(found)
