"""The report of a scaling study: as text, as a table of its samples, and as JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyrank.scaling.laws import GUSTAFSON, Analysis, Estimate, Fit, ScalingPoint
from anyrank.scaling.measured import PHASES, ScalingStudy
from anyrank.storage.durable import write_atomically

if TYPE_CHECKING:
    from anyrank.scaling.model import Prediction

_ROW = "{:>7}  {:<26} {:<22} {:<11} {:<21} "
#: The smallest fraction of time that the text mentions, and the smallest that gets a column.
_WORDS, _COLUMN = 0.02, 0.001
#: Runs with less than this time in seconds are too short for a reliable result.
_SHORTEST = 0.1
#: Smaller parameters of a law count as zero.
_ZERO = 1e-9
_LOST = {"idle": "idle (imbalance)", "other": "the loop itself", "reduce": "reductions", "checkpoint": "checkpoints"}


def as_text(analysis: Analysis, study: ScalingStudy, predicted: Sequence[Prediction] = ()) -> str:
    """Format the report for a terminal: a row for each number of ranks, the lost time, and the laws."""
    points, base = analysis.points, analysis.points[0].ranks
    rows = [(f"{point.ranks}{'*' * point.oversubscribed}", point) for point in points]
    rows += [(f"{prediction.ranks}~", as_point(prediction, points[0])) for prediction in predicted]
    names = visible_phases(point for _, point in rows)
    speedup = "scaled speed-up" if analysis.kind == "weak" else "speed-up"
    heads = _ROW.format("ranks", "seconds (95%)", speedup, "efficiency", "Karp–Flatt")
    lines = [heads + "".join(f"{name:>{len(name) + 2}}" for name in names)]
    for mark, point in rows:
        serial = _format(point.serial, "{:.3f}") if point.serial else "-"
        efficiency = f"{point.efficiency.value:.1%}"
        cells = _ROW.format(mark, _format(point.seconds), _format(point.speedup), efficiency, serial)
        lines.append(cells + "".join(f"{point.phases[name]:>{len(name) + 2}.1%}" for name in names))
    if base > 1:
        lines.append(f"Speed-ups are relative to {base} ranks, whose speed-up is defined as {base}.")
    if any(point.oversubscribed for point in points):
        lines.append(
            f"* {sharing_note(study)}: not comparable to runs with a core for each rank, and left out of the laws."
        )
    if predicted:
        lines.append("~ predicted by the model, with the range of its predictions for the measurements.")
    last = {point.oversubscribed: point for point in points[1:]}
    lines += [_lost(point, base) for point in last.values()]
    if min(point.seconds.value for point in points) < _SHORTEST:
        lines.append(f"Runs of less than {_SHORTEST} s are unreliable: choose parameters with more or larger steps.")
    return "\n".join([*lines, *map(_law, analysis.fits), *analysis.missing, analysis.verdict]).rstrip()


def as_point(prediction: Prediction, base: ScalingPoint) -> ScalingPoint:
    """Convert a prediction to a ScalingPoint, relative to the measured point with the smallest number of ranks."""
    seconds = Estimate(prediction.seconds, (prediction.low, prediction.high))
    rate = seconds.through(lambda it: prediction.work / it)
    speedup = rate.through(lambda it: base.ranks * it / base.rate.value)
    efficiency = speedup.through(lambda it: it / prediction.ranks)
    phases = {name: it / prediction.seconds for name, it in prediction.phases.items()}
    slowdown = efficiency.through(lambda it: phases["compute"] / base.phases["compute"] / it)
    return ScalingPoint(prediction.ranks, False, seconds, rate, speedup, efficiency, None, phases, slowdown, ())


def visible_phases(points: Iterable[ScalingPoint]) -> list[str]:
    """Return the phases that take a visible fraction of the time at any of the points."""
    shares = [point.phases for point in points]
    return [name for name in PHASES if any(share[name] >= _COLUMN for share in shares)]


def _format(estimate: Estimate, form: str = "") -> str:
    form = form or ("{:.4g}" if estimate.value < 9999.5 else "{:.0f}")
    ends = "–".join(map(form.format, estimate.interval))
    return form.format(estimate.value) + (f" ({ends})" if ends else "")


def _lost(point: ScalingPoint, base: int) -> str:
    parts = sorted(((share, name) for name, share in point.phases.items() if name != "compute"), reverse=True)
    words = [f"{share:.0%} {_LOST.get(name, name)}" for share, name in parts if share >= _WORDS]
    line = f"Time lost at {point.ranks} ranks: {', '.join(words) or 'almost none'}"
    if point.slowdown.value > 1 + _WORDS:
        line += f"; computing the same work takes a rank {_format(point.slowdown, '{:.2f}')} times as long as at {base}"
    return line + "."


def _law(fit: Fit) -> str:
    values = ", ".join(f"{name} = {_format(estimate, '{:.3g}')}" for name, estimate in fit.parameters.items())
    return f"{fit.law}: {values}; deviates from the points by {fit.misfit:.1%}; {_limit(fit)}."


def _limit(fit: Fit) -> str:
    """Return the prediction of the law for more ranks."""
    first, *more = fit.parameters.values()
    if fit.law == GUSTAFSON:
        return f"each additional rank adds {1 - first.value:.1%} of a rank's speed"
    if more and more[0].value > _ZERO:
        doubt = "" if min(more[0].interval, default=0) > 0 else ", but a maximum is not certain"
        return f"fastest on {max(1.0, ((1 - first.value) / more[0].value) ** 0.5):.0f} ranks{doubt}"
    return f"at most {1 / first.value:.3g} times as fast as one rank" if first.value > _ZERO else "no limit visible"


def sharing_note(study: ScalingStudy) -> str:
    """Return the note on samples whose ranks share cores, with the number of cores if it is known."""
    cores = study.machine.get("cores")
    return f"ranks share cores ({cores} cores)" if cores else "ranks share cores"


def quantity(number: float) -> str:
    """Format a number with three digits and a prefix: 4.19 M."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {prefix}"
    return f"{number:.3g}"


def write_csv(path: Path, study: ScalingStudy) -> Path:
    """Write the raw samples to a CSV file, a row each, with a column for each phase and count; return the path."""
    rows = []
    for sample in study.samples:
        row = asdict(sample)
        phases, traffic = row.pop("phases"), row.pop("traffic")
        seconds = {f"{name}_seconds": value for name, value in phases.items()}
        rows.append({**row, "rate": sample.rate, **seconds, **{f"{name}_per_step": it for name, it in traffic.items()}})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())
    return path


def as_json(study: ScalingStudy, analysis: Analysis, predicted: Sequence[Prediction] = ()) -> dict[str, Any]:
    """Return the measurements, the analysis and the predictions, for `json.dumps`."""
    return {"study": asdict(study), "analysis": asdict(analysis), "predicted": [*map(asdict, predicted)]}
