"""The report as one HTML file that loads nothing else: no script, no network, images inline."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imprompt.core.atomic_files import atomic_write
from imprompt.evaluation.nested_cv import BLEND, PRINTED
from imprompt.evaluation.plots import plots
from imprompt.evaluation.report import Report
from imprompt.evaluation.study import Study, make_report
from imprompt.images.decode import open_image

_TEMPLATE = Path(__file__).with_name("report_page.html")
_SIDE_PX = 180
_GALLERY_SIZE = 8


@dataclass(frozen=True, slots=True)
class ReportImage:
    """A pair of the gallery; `picture` is a data URI, `confidence` None if not calibrated."""

    picture: str
    truth: str
    printed: str
    cosine: float
    printed_cosine: float
    confidence: float | None


def write_page(out: Path, study: Study, *, gallery: bool = False) -> Report:
    """Write the page of a study atomically, and return the figures on it.

    Args:
        gallery: show the best, median and worst answers with their pictures and prompts. The page
            then holds data of the pairs: keep it private.

    Raises:
        ConfigError: matplotlib is not installed.
        StorageFull: the file cannot be written.
    """
    report = make_report(study)
    images = plots(report, study.scores, study.pairs.main_rows)
    page = render(report, images, gallery_images(study) if gallery else {})
    with atomic_write(out) as file:
        file.write(page.encode("utf-8"))
    return report


def render(
    report: Report, images: Mapping[str, bytes], gallery: Mapping[str, Sequence[ReportImage]]
) -> str:
    """Return the page as HTML; all values are escaped.

    Args:
        images: the plots by name, as PNG bytes.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["interval"] = str
    template = environment.from_string(_TEMPLATE.read_text("utf-8"))
    sources = {name: _data_uri("image/png", content) for name, content in images.items()}
    return template.render(report=report, plots=sources, gallery=gallery)


def gallery_images(study: Study) -> dict[str, list[ReportImage]]:
    """Return the eight best, median and worst blends of the main kind."""
    rows = study.pairs.main_rows
    order = rows[np.argsort(-study.scores[BLEND][rows], kind="stable")]
    middle = max((len(order) - _GALLERY_SIZE) // 2, 0)
    parts = {
        "best": order[:_GALLERY_SIZE],
        "median": order[middle : middle + _GALLERY_SIZE],
        "worst": order[::-1][:_GALLERY_SIZE],
    }
    return {name: [_report_image(study, int(row)) for row in part] for name, part in parts.items()}


def _report_image(study: Study, row: int) -> ReportImage:
    pair = study.pairs.rows[row]
    return ReportImage(
        picture=_thumbnail(pair.image),
        truth=pair.texts[0],
        printed=study.predictions[row].prompt,
        cosine=float(study.scores[BLEND][row]),
        printed_cosine=float(study.scores[PRINTED][row]),
        confidence=float(study.calibrated.confidence[row]) if study.calibrated else None,
    )


def _thumbnail(path: Path) -> str:
    picture = open_image(path)
    picture.thumbnail((_SIDE_PX, _SIDE_PX))
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=80)
    return _data_uri("image/webp", out.getvalue())


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
