"""`fit-weights`: write a blend config whose weights fit your own pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprompt.commands.evaluate import StudyOptions, show_gains, tell_failed
from imprompt.commands.index_options import IndexOptions
from imprompt.commands.output import Output, grid

if TYPE_CHECKING:
    from imprompt.ensemble.blend_config import BlendConfig


def fit_weights(
    *,
    study_options: StudyOptions,
    out: Annotated[
        Path,
        typer.Option("--out", help="The blend config to write (JSON); use it as `--blend FILE`."),
    ],
    location: IndexOptions,
    output: Output,
) -> None:
    """Fit a blend config to your own pairs: member weights, settings of knn, and confidence.

    Nested cross-validation measures the result: each fold is answered with weights, settings and
    heads that were fitted without it. A member that does not improve the blend is named, as is a
    blend that does not improve on its best member.
    """
    from imprompt.core.atomic_files import check_place
    from imprompt.ensemble.blend_config import write_blend_config
    from imprompt.evaluation.study import fitted_blend_config, make_report

    check_place(out)
    study = study_options.run(location, output)
    report = make_report(study)
    blend_config = fitted_blend_config(study, name=out.stem)
    write_blend_config(out, blend_config)
    if output.json:
        output.line({"blend": blend_config, "report": report})
    else:
        _show_weights(output, blend_config)
        show_gains(output, report)
        calibrated = "calibrated for this encoder and corpus size"
        output.text(f"confidence: {calibrated if blend_config.calibrations else 'not calibrated'}")
    output.note(f"Blend config: {out}; use it with --blend {out}")
    tell_failed(output, study)


def _show_weights(output: Output, blend_config: BlendConfig) -> None:
    rows = [(name, f"{weight:.2f}") for name, weight in blend_config.weights.items()]
    title = f"Blend config {blend_config.name}"
    output.table(grid(title, ["member", "weight"], rows, right=["weight"]))
    if "knn" in blend_config.weights:
        knn = blend_config.knn
        output.text(f"knn: k {knn.k}, power {knn.power:g}, floor {knn.floor:g}")
