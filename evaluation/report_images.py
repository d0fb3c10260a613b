"""The best, the median and the worst answers, with their pictures: for a look in private, written only when asked for."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imprompt.evaluation.nested_cv import BLEND, PRINTED
from imprompt.evaluation.study import Study
from imprompt.images.decode import open_image

_SIDE_PX = 180
_EACH = 8


@dataclass(frozen=True, slots=True)
class ReportImage:
    """A pair: its picture as a data URI, the true prompt, what was printed, the cosines, and the confidence where there is one."""

    picture: str
    truth: str
    printed: str
    cosine: float
    printed_cosine: float
    confidence: float | None


def exhibits(study: Study) -> dict[str, list[ReportImage]]:
    """Eight each of the best, the median and the worst blends of the main kind."""
    rows = np.flatnonzero(study.pairs.fitted_on)
    order = rows[np.argsort(-study.scores[BLEND][rows], kind="stable")]
    middle = max((len(order) - _EACH) // 2, 0)
    chosen = {
        "best": order[:_EACH],
        "median": order[middle : middle + _EACH],
        "worst": order[::-1][:_EACH],
    }
    return {name: [_exhibit(study, int(row)) for row in part] for name, part in chosen.items()}


def _exhibit(study: Study, row: int) -> ReportImage:
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
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"
