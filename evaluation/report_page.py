"""The report as one HTML file, which needs nothing else: no script, no network, plots and thumbnails inside of it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from imprompt.core.atomic_files import atomic_write
from imprompt.core.metrics import Estimate
from imprompt.evaluation.nested_cv import CONSTANT
from imprompt.evaluation.plots import plots
from imprompt.evaluation.report import Report
from imprompt.evaluation.report_images import ReportImage, exhibits
from imprompt.evaluation.study import Study
from imprompt.evaluation.study_steps import make_report

_TEMPLATE = Path(__file__).with_name("page.html")


def write_page(out: Path, study: Study, *, gallery: bool = False) -> Report:
    """Write the page of a study, whole or not at all, and return the figures on it.

    Args:
        gallery: also show the best, median and worst answers with their pictures and prompts; such
            a page is private.

    Raises:
        ConfigError: matplotlib is not installed.
        StorageFull: the file may not be written.
    """
    report = make_report(study)
    rows = np.flatnonzero(study.pairs.fitted_on)
    page = render(report, plots(report, study.scores, rows), exhibits(study) if gallery else {})
    with atomic_write(out) as file:
        file.write(page.encode("utf-8"))
    return report


def render(
    report: Report, pictures: Mapping[str, bytes], shown: Mapping[str, Sequence[ReportImage]]
) -> str:
    """The page as a text; every word from outside is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["interval"] = interval
    template = environment.from_string(_TEMPLATE.read_text("utf-8"))
    sources = {
        name: f"data:image/png;base64,{base64.b64encode(content).decode()}"
        for name, content in pictures.items()
    }
    return template.render(report=report, plots=sources, gallery=shown, constant=CONSTANT)


def interval(found: Estimate) -> str:
    """A mean and its bounds: 0.512 [0.498, 0.525]."""
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"
