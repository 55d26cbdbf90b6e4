"""The figure of a scaling study: speed-up with the laws and predictions, efficiency, and time by phase."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anyrank.scaling.laws import Analysis, ScalingPoint
from anyrank.scaling.measured import PHASES, ScalingStudy
from anyrank.scaling.report import as_point, quantity, sharing_note, visible_phases

if TYPE_CHECKING:
    from anyrank.scaling.model import Prediction

#: Colours that colour-blind readers can distinguish (Okabe and Ito 2008), light next to dark, and grey for idle time.
COLOURS = dict(zip(PHASES, ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#B8B8B8", "#F0E442"), strict=True))
MEASURED, PREDICTED, GREY = "black", "#009E73", "#8A8A8A"
#: Colours and line styles of the laws, whose curves often overlap.
LAWS = (("#0072B2", "-"), ("#D55E00", (0, (5, 2))))
STYLE = {
    "svg.fonttype": "none",  # write text as text, not as paths
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "hatch.linewidth": 0.8,
}
#: The largest number of ticks of an axis.
_TICKS = 8


def draw(study: ScalingStudy, analysis: Analysis, path_stem: Path, predicted: Sequence[Prediction] = ()) -> list[Path]:
    """Draw a study into a PNG and an SVG file in the same folder, and return their paths."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    paths = [path_stem.with_name(f"{path_stem.name}.{ending}") for ending in ("png", "svg")]
    with rc_context(STYLE):
        figure = Figure(figsize=(13.5, 5.2), layout="constrained")
        FigureCanvasAgg(figure)
        left, middle, right = figure.subplots(1, 3)
        beyond = [as_point(prediction, analysis.points[0]) for prediction in sorted(predicted, key=lambda p: p.ranks)]
        _speed(left, study, analysis, beyond, each=False)
        _speed(middle, study, analysis, beyond, each=True)
        _phases(right, analysis.points, beyond)
        figure.suptitle(_title(study), fontsize=11)
        figure.supxlabel("\n".join([*analysis.missing, analysis.verdict]).strip(), fontsize=7.5, color="#555555")
        for path in paths:
            figure.savefig(path, dpi=130)
    return paths


def _title(study: ScalingStudy) -> str:
    sample = study.at(study.ranks()[0])[0]
    work, whose = sample.work / sample.steps, ""
    if study.kind == "weak":
        work, whose = work / sample.ranks, " and rank"
    first = f"{study.program}, {study.kind} scaling: {quantity(work)} {study.unit} a step{whose}"
    machine = study.machine.get("processor", study.machine.get("host", ""))
    return f"{first}\n{' · '.join(filter(None, (machine, str(study.machine.get('utc', ''))[:10])))}"


def _speed(axes: Any, study: ScalingStudy, analysis: Analysis, predicted: Sequence[ScalingPoint], each: bool) -> None:
    """Draw speed-ups over ranks, or with `each` the efficiency, which is the speed-up per rank."""

    def draw(ranks: Any, speedup: Any, *form: Any, **style: Any) -> None:
        axes.plot(ranks, np.divide(speedup, ranks if each else 1), *form, **style)

    points = analysis.points
    ranks = sorted({point.ranks for point in (*points, *predicted)})
    draw([ranks[0], ranks[-1]], [ranks[0], ranks[-1]], color=GREY, linewidth=0.8, label="ideal")
    ranks_fine, offset = np.geomspace(points[0].ranks, points[-1].ranks, 200), (ranks[-1] / ranks[0]) ** 0.016
    for fit, (colour, line) in zip(analysis.fits, LAWS, strict=False):
        values = ", ".join(f"{name} = {estimate.value:.2g}" for name, estimate in fit.parameters.items())
        label = f"{fit.law}, {values}{' (fits best)' if fit.law == analysis.best else ''}"
        draw(ranks_fine, fit.speedup(ranks_fine), color=colour, linestyle=line, linewidth=1.1, zorder=3, label=label)
    for point, other in pairwise(points):
        dashed = {"linestyle": (0, (4, 3)), "color": GREY}
        style = dashed if point.oversubscribed or other.oversubscribed else {"color": "#555555"}
        draw([point.ranks, other.ranks], [point.speedup.value, other.speedup.value], linewidth=0.8, **style)
    for point in points:
        dots = np.divide(point.rounds if point is not points[0] else [], point.ranks if each else 1)
        axes.plot([point.ranks * offset] * len(dots), dots, ".", color=MEASURED, alpha=0.3, mew=0, markersize=5)
        draw(
            [point.ranks] * len(point.speedup.interval), point.speedup.interval, color=MEASURED, linewidth=1.2, zorder=4
        )
        filling = "white" if point.oversubscribed else MEASURED
        draw(point.ranks, point.speedup.value, "o", color=MEASURED, mfc=filling, markersize=4, zorder=5)
    text = "measured: median, 95% interval; pale: each round"
    axes.plot([], "o-", color=MEASURED, markersize=4, linewidth=1, label=text)
    if any(point.oversubscribed for point in points):
        axes.plot(
            [], "o--", color=GREY, mec=MEASURED, mfc="white", markersize=4, label=f"hollow: {sharing_note(study)}"
        )
    if predicted:
        _predictions(axes, points, predicted, each)
    _scales(axes, analysis, ranks, each)


def _predictions(axes: Any, points: Sequence[ScalingPoint], predicted: Sequence[ScalingPoint], each: bool) -> None:
    """Draw predicted speed-ups, joined to the last smaller point whose ranks do not share cores."""
    before = [point for point in points if not point.oversubscribed and point.ranks < predicted[0].ranks][-1:]
    values = [(point.ranks, point.efficiency if each else point.speedup) for point in (*before, *predicted)]
    ranks, middle = [count for count, _ in values], [estimate.value for _, estimate in values]
    low, high = ([end(estimate.value, *estimate.interval) for _, estimate in values] for end in (min, max))
    axes.fill_between(ranks, low, high, color=PREDICTED, alpha=0.18, linewidth=0)
    style = {"color": PREDICTED, "markersize": 4, "linewidth": 1.6, "markevery": (len(before), 1)}
    axes.plot(ranks, middle, "D:", label="predicted by the model", **style)


def _scales(axes: Any, analysis: Analysis, ranks: Sequence[int], each: bool) -> None:
    from matplotlib.ticker import PercentFormatter

    base = analysis.points[0].ranks
    what = "Efficiency" if each else "Scaled speed-up" if analysis.kind == "weak" else "Speed-up"
    axes.set_title(what if base == 1 else f"{what} relative to {base} ranks")
    axes.set_xscale("log", base=2)
    axes.set_xticks(_ticks(ranks))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel("ranks")
    axes.grid(visible=True)
    if each:
        axes.set_ylim(0, max(1.08, axes.get_ylim()[1]))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    else:
        axes.set_yscale("log", base=2)
        low, high = np.log2(axes.get_ylim())
        ticks = 2.0 ** np.arange(np.ceil(low), high, max(1, np.ceil((high - low) / _TICKS)))
        ticks = ticks if high - low > 1.5 else np.arange(1, 5 * 2**high) / 4
        axes.set_yticks([tick for tick in ticks if 2**low <= tick <= 2**high])
        axes.yaxis.set_major_formatter("{x:.15g}")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13))
    axes.minorticks_off()


def _ticks(ranks: Sequence[int]) -> list[int]:
    """Return ticks of a logarithmic axis: the numbers of ranks, if there is room for them, or else powers of two."""
    octaves, room = np.diff(np.log2(ranks)), max(1 / 14, 0.02 * len(str(ranks[-1])))
    if len(ranks) <= _TICKS and all(octaves >= octaves.sum() * room):
        return list(ranks)
    low, high = np.log2(ranks[0]), np.log2(ranks[-1])
    return [2 ** int(exponent) for exponent in np.arange(np.ceil(low), high + 0.01, np.ceil((high - low + 1) / _TICKS))]


def _phases(axes: Any, points: Sequence[ScalingPoint], predicted: Sequence[ScalingPoint]) -> None:
    """Draw bars of the time by phase: hatched if ranks share cores, pale if predicted."""
    from matplotlib.patches import Patch
    from matplotlib.ticker import PercentFormatter

    bars = [*points, *predicted]
    for at, bar in enumerate(bars):
        shares = [bar.phases[name] for name in PHASES]
        hatch, alpha = "///" if bar.oversubscribed else "", 1.0 if at < len(points) else 0.5
        style = {"width": 0.8, "edgecolor": "white", "linewidth": 0.4, "hatch": hatch, "alpha": alpha}
        for share, top, name in zip(shares, np.cumsum(shares), PHASES, strict=True):
            axes.bar(at, share, bottom=top - share, facecolor=COLOURS[name], **style)
    labelled = range(0, len(bars), 1 + len(bars) // 24)
    axes.set_xticks(labelled, labels=[str(bars[at].ranks) for at in labelled], size=np.clip(64 / len(labelled), 5, 9))
    handles = [Patch(color=COLOURS[name], label=name) for name in visible_phases(bars)]
    if any(bar.oversubscribed for bar in bars):
        handles.append(Patch(facecolor=GREY, edgecolor="white", hatch="///", label="ranks share cores"))
    if predicted:
        handles.append(Patch(color=GREY, alpha=0.5, label="pale: predicted"))
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylim(0, 1)
    axes.set_xlabel("ranks")
    axes.set_title("Time of a step by phase")
