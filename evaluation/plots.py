"""The plots of the page, as PNG bytes; they show no prompt and no image of the pairs."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from imprompt.core.errors import ConfigError
from imprompt.core.metrics import Estimate
from imprompt.core.pip_lines import install_extra
from imprompt.core.values import Ids
from imprompt.evaluation.calibration import CalibrationReport
from imprompt.evaluation.nested_cv import BLEND, CONSTANT, PRINTED, Scores
from imprompt.evaluation.report import Report, Slice

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DPI = 160
_INK, _GREY, _BLUE, _RED = "#1c2330", "#9aa3b2", "#2563a8", "#c2513a"
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.axisbelow": True,
}


def check_plots() -> None:
    """Raise `ConfigError` if matplotlib is not installed."""
    try:
        import matplotlib as _matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "The page's plots need matplotlib.", hint=install_extra("report")
        ) from error


def plot_answers(part: Slice) -> bytes:
    """Plot the mean cosine of every answer with its interval, and the constant as a line."""
    shown = [score for score in part.scores if score.answer != CONSTANT]
    with _figure(6.4, 0.6 + 0.32 * len(shown)) as (axes, out):
        constant = next((score.cosine for score in part.scores if score.answer == CONSTANT), None)
        if constant is not None:
            axes.axvspan(constant.low, constant.high, color=_GREY, alpha=0.25, linewidth=0)
            axes.axvline(constant.mean, color=_GREY, linewidth=1.2, label="constant answer")
            axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        colours = [_RED if score.answer == BLEND else _BLUE for score in shown]
        _intervals(
            axes, [score.cosine for score in shown], [score.answer for score in shown], colours
        )
        axes.set_xlabel("mean cosine with the true prompt, 95 % interval")
    return out.getvalue()


def plot_slices(slices: Sequence[Slice]) -> bytes:
    """Plot the blend and the constant in each slice."""
    with _figure(6.4, 0.6 + 0.36 * len(slices)) as (axes, out):
        labels = [f"{part.name} (n = {part.n:,})" for part in slices]
        for answer, colour, shift in ((CONSTANT, _GREY, 0.12), (BLEND, _RED, -0.12)):
            cosines = [
                next(score.cosine for score in part.scores if score.answer == answer)
                for part in slices
            ]
            _intervals(axes, cosines, labels, [colour] * len(cosines), shift=shift, label=answer)
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        axes.set_xlabel("mean cosine with the true prompt, 95 % interval")
    return out.getvalue()


def plot_spread(scores: Scores, rows: Ids) -> bytes:
    """Plot histograms of the cosines of the blend, the printed prompt and the constant."""
    with _figure(6.4, 2.6) as (axes, out):
        edges = np.linspace(-0.2, 1, 37)
        for answer, colour in ((CONSTANT, _GREY), (PRINTED, _BLUE), (BLEND, _RED)):
            if answer in scores:
                axes.hist(
                    scores[answer][rows],
                    bins=list(edges),
                    histtype="step",
                    color=colour,
                    linewidth=1.4,
                    label=answer,
                )
        axes.legend(frameon=False, loc="upper left")
        axes.set_xlabel("cosine with the true prompt")
        axes.set_ylabel("pairs")
    return out.getvalue()


def plot_reliability(report: CalibrationReport) -> bytes:
    """Plot confidence against the share of close answers, in bins of equal counts."""
    with _figure(3.6, 3.2) as (axes, out):
        confidence = [part.confidence for part in report.bins]
        close = [part.close for part in report.bins]
        top = max(*confidence, *close) * 1.08
        axes.plot([0, top], [0, top], color=_GREY, linewidth=1)
        axes.plot(confidence, close, "o-", color=_RED, linewidth=1.2, markersize=4)
        axes.set(xlim=(0, top), ylim=(0, top), xlabel="confidence", ylabel="share that was close")
    return out.getvalue()


def plots(report: Report, scores: Scores, rows: Ids) -> dict[str, bytes]:
    """Return all plots of a page by name; `rows` are those of the main kind."""
    main = next(
        (part for part in report.slices if (part.by, part.name) == ("kind", report.main_kind)),
        report.slices[0],
    )
    images = {"answers": plot_answers(main), "spread": plot_spread(scores, rows)}
    for by in ("generator", "length"):
        if parts := [part for part in report.slices if part.by == by]:
            images[by] = plot_slices(parts)
    if report.calibration is not None:
        images["reliability"] = plot_reliability(report.calibration)
    return images


def _intervals(
    axes: Axes,
    estimates: Sequence[Estimate],
    labels: Sequence[str],
    colours: Sequence[str],
    *,
    shift: float = 0,
    label: str = "",
) -> None:
    heights = range(len(estimates))[::-1]  # the first on top
    for height, estimate, colour in zip(heights, estimates, colours, strict=True):
        y = height + shift
        axes.plot(
            [estimate.low, estimate.high],
            [y, y],
            color=colour,
            linewidth=2.2,
            alpha=0.45,
            solid_capstyle="round",
        )
        axes.plot(
            [estimate.mean],
            [y],
            "o",
            color=colour,
            markersize=4.5,
            label=label if height == heights[0] and label else None,
        )
    axes.set_yticks(heights, labels)
    axes.set_ylim(-0.6, len(estimates) - 0.4)
    axes.grid(axis="x", color=_GREY, alpha=0.25, linewidth=0.6)


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Axes, io.BytesIO]]:
    """Yield axes to draw on, and the buffer that holds the PNG once the block has ended."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    out = io.BytesIO()
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure.add_subplot(), out
        figure.savefig(out, format="png", dpi=_DPI, metadata={"Software": None})
