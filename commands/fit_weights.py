"""`fit-weights`: a blend config whose weights fit the user's own pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imprompt.commands.blend_options import Blend
from imprompt.commands.evaluate import (
    Folds,
    PairsFile,
    Unseen,
    show_gains,
    study_pairs,
    tell_failed,
)
from imprompt.commands.options import Device, IndexOption, Json, Offline, Quiet, Verbose
from imprompt.commands.output import Output, grid


def fit_weights(
    pairs: PairsFile,
    out: Annotated[
        Path,
        typer.Option("--out", help="The blend config to write (JSON); use it as `--blend FILE`."),
    ],
    unseen: Unseen = False,
    folds: Folds = 5,
    blend: Blend = None,
    index: IndexOption = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    offline: Offline = False,
) -> None:
    """Fit the weights of a blend config's members, knn's k, power and floor, and the confidence, to your own pairs.

    What the fitted blend config is worth is measured by nested cross-validation: each fold is answered by
    weights, settings and heads that were fitted without it. A member, or the blend itself, that
    does not earn its place is named.
    """
    from imprompt.core.atomic_files import check_place
    from imprompt.ensemble.blend_config import write_blend_config
    from imprompt.evaluation.study import fitted_blend_config, make_report

    output = Output(json=json, quiet=quiet, verbose=verbose)
    check_place(out)
    study = study_pairs(
        pairs,
        blend,
        unseen=unseen,
        folds=folds,
        index=index,
        device=device,
        offline=offline,
        output=output,
    )
    report = make_report(study)
    blend_config = fitted_blend_config(study, name=out.stem)
    write_blend_config(out, blend_config)
    if json:
        output.line({"blend": blend_config, "report": report})
    else:
        rows = [(name, f"{weight:.2f}") for name, weight in blend_config.weights.items()]
        output.table(
            grid(f"Blend {blend_config.name}", ["member", "weight"], rows, right=["weight"])
        )
        if "knn" in blend_config.weights:
            output.text(
                f"knn: k {blend_config.knn.k}, power {blend_config.knn.power:g}, floor {blend_config.knn.floor:g}"
            )
        show_gains(output, report)
        output.text(
            "confidence: "
            + (
                "not calibrated"
                if not blend_config.calibrations
                else "calibrated for this encoder and corpus size"
            )
        )
    output.note(f"The blend config: {out}, used by --blend {out}")
    tell_failed(output, study)
