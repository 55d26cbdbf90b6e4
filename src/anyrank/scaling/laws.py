"""Laws of scaling: the measured speed-ups of a study, and the laws fitted to them, with their uncertainty.

All quantities are derived from rates (work per second). Strong studies with constant work and weak studies with growing
work are therefore treated in the same way, and rounding of a problem size has no effect. Ratios are formed within a
round, so that drift of the machine from round to round cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from anyrank.scaling.measured import PHASES, Sample, ScalingStudy

AMDAHL, GUSTAFSON, USL = "Amdahl's law", "Gustafson's law", "Universal Scalability Law"
#: The laws for each kind of study, and their unknown parameters: fractions of the work on one rank.
LAWS = {"strong": (AMDAHL, USL), "weak": (GUSTAFSON, USL)}
PARAMETERS = {AMDAHL: ("s",), GUSTAFSON: ("s",), USL: ("σ", "κ")}
#: Smaller differences of Akaike's criterion are not significant (Burnham and Anderson 2002, section 2.6).
SIGNIFICANT = 2.0


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % confidence interval, which is empty for fewer than three repeats."""

    value: float
    interval: tuple[float, ...] = ()

    def through(self, function: Callable[[float], float]) -> Estimate:
        """Apply a monotonic function to the number and its interval."""
        return Estimate(function(self.value), tuple(sorted(map(function, self.interval))))


@dataclass(frozen=True)
class ScalingPoint:
    """The measurements on one number of ranks.

    `speedup` is the rate relative to that of the smallest number of ranks, times that number: scaled speed-up in a weak
    study; `rounds` has the speed-up of each round. `serial` is Karp and Flatt's fraction, if one rank was measured.
    `phases` are fractions of the time. `slowdown` is a rank's computing time per unit of work relative to the smallest
    number of ranks. `oversubscribed`: ranks share cores.
    """

    ranks: int
    oversubscribed: bool
    seconds: Estimate
    rate: Estimate
    speedup: Estimate
    efficiency: Estimate
    serial: Estimate | None
    phases: dict[str, float]
    slowdown: Estimate
    rounds: tuple[float, ...]


@dataclass(frozen=True)
class Fit:
    """A law, fitted to the points whose ranks do not share cores.

    `scale` is its speed-up for one rank, `misfit` the root mean square of its relative errors at the points, `aicc`
    Akaike's criterion, None if there are too few samples for it.
    """

    law: str
    parameters: dict[str, Estimate]
    scale: float
    misfit: float
    aicc: float | None

    def speedup(self, ranks: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the speed-up by the law for these numbers of ranks."""
        first, *more = (estimate.value for estimate in self.parameters.values())
        values = _columns(self.law, ranks) @ np.array([first, 1 - first, *more])
        return np.asarray(self.scale * (values if self.law == GUSTAFSON else 1 / values))


@dataclass(frozen=True)
class Analysis:
    """The analysis of a study: its `best` law with the reason, and why each `missing` law could not be fitted."""

    kind: str
    points: tuple[ScalingPoint, ...]  # by ranks
    fits: tuple[Fit, ...]
    best: str | None
    verdict: str
    missing: tuple[str, ...]


def analyse(study: ScalingStudy) -> Analysis:
    """Compute speed-up, efficiency and Karp–Flatt fraction for each number of ranks, and fit the laws."""
    points = tuple(_point(study, ranks) for ranks in study.ranks())
    results = [_fit(law, study, [point for point in points if not point.oversubscribed]) for law in LAWS[study.kind]]
    fits = tuple(fit for fit in results if isinstance(fit, Fit))
    return Analysis(study.kind, points, fits, *_best(fits), tuple(why for why in results if isinstance(why, str)))


def _point(study: ScalingStudy, ranks: int) -> ScalingPoint:
    samples, base = study.at(ranks), study.ranks()[0]
    rounds = base * _ratios(study, ranks, lambda sample: sample.rate)
    speedup = _median(rounds) if ranks > base else Estimate(float(base))
    return ScalingPoint(
        ranks=ranks,
        oversubscribed=any(sample.oversubscribed for sample in samples),
        seconds=_median(np.array([sample.seconds for sample in samples])),
        rate=_median(np.array([sample.rate for sample in samples])),
        speedup=speedup,
        efficiency=speedup.through(lambda value: value / ranks),
        # Karp and Flatt, CACM 33(5), 1990, 539.
        serial=speedup.through(lambda value: (1 / value - 1 / ranks) / (1 - 1 / ranks)) if base == 1 < ranks else None,
        phases={name: float(np.mean([sample.phases[name] / sample.seconds for sample in samples])) for name in PHASES},
        slowdown=_median(_ratios(study, ranks, lambda sample: sample.ranks * sample.phases["compute"] / sample.work)),
        rounds=tuple(rounds.tolist()),
    )


def _ratios(study: ScalingStudy, ranks: int, of: Callable[[Sample], float]) -> np.ndarray:
    """Return a value of the samples on `ranks` ranks relative to that on the smallest number of ranks, by round."""
    base = study.ranks()[0]
    paired = _rounds(study, (base, ranks), of)
    if not len(paired):  # no round has both yet, so drift does not cancel
        paired = np.array([[np.median([of(sample) for sample in study.at(count)]) for count in (base, ranks)]])
    return np.asarray(paired[:, 1] / paired[:, 0])


def _rounds(study: ScalingStudy, ranks: Sequence[int], of: Callable[[Sample], float]) -> np.ndarray:
    """Return a value of the samples, by round and number of ranks, for the rounds that measured all these numbers."""
    values = {(sample.round, sample.ranks): of(sample) for sample in study.samples}
    rounds = sorted({number for number, _ in values})
    complete = [number for number in rounds if all((number, count) in values for count in ranks)]
    return np.array([[values[number, count] for count in ranks] for number in complete]).reshape(-1, len(ranks))


def _median(values: np.ndarray) -> Estimate:
    """Return the median of positive numbers, with an interval.

    For six or more numbers, the interval comes from order statistics, which are valid for any noise. For fewer, even
    the extremes enclose the median with less than 95 %. The interval is then Student's, of the logarithms: exact for
    log-normal noise, and 93 % or more for five values that are uniform, have an exponential tail, or outliers in a
    tenth of the runs.
    """
    from scipy.special import bdtr

    if len(values) < 6:
        return _enclosing(float(np.median(values)), np.exp(_student(np.log(values))))
    below = np.arange(len(values) // 2)
    first = below[bdtr(below, len(values), 0.5) <= 0.025][-1]
    return _enclosing(float(np.median(values)), np.sort(values)[[first, -1 - first]])


def _student(values: np.ndarray) -> np.ndarray:
    """Return Student's 95 % interval of the mean of normal numbers; empty for fewer than three."""
    from scipy.special import stdtrit

    if len(values) < 3:
        return np.empty(0)
    half = stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values))
    return np.array([values.mean() - half, values.mean() + half])


def _enclosing(value: float, ends: np.ndarray) -> Estimate:
    return Estimate(value, (float(min(*ends, value)), float(max(*ends, value))) if ends.size else ())


def _columns(law: str, ranks: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the terms of a law, which is linear in them: seconds per unit of work, or for Gustafson's law the rate.

    Amdahl (1967): A + B/p; Gustafson (1988): A + B·p; Gunther's Universal Scalability Law (2007): A + B/p + C·(p − 1).
    With A + B as the unit, A is the serial fraction s, or the contention σ, and C the coherency κ.
    """
    p = np.asarray(ranks, float)
    return np.stack({AMDAHL: (p**0, 1 / p), GUSTAFSON: (p**0, p), USL: (p**0, 1 / p, p - 1)}[law], axis=-1)


def _fit(law: str, study: ScalingStudy, points: Sequence[ScalingPoint]) -> Fit | str:
    """Fit a law by least squares of relative errors, or return why that is not possible.

    The law is fitted to the medians over rounds, with no negative coefficients. Its intervals are Student's over the
    rounds. Each round is fitted separately and without bounds, because bounds bias the estimates; then the intervals
    are limited to 0 and 1. They cover noise and drift between rounds, but not a wrong law, or drift within every round.
    """
    from scipy.optimize import nnls

    names, ranks = PARAMETERS[law], [point.ranks for point in points]
    if len(ranks) < len(names) + 2:
        needs = f"needs at least {len(names) + 2} numbers of ranks that do not share cores"
        have = f"there {'is' if len(ranks) == 1 else 'are'} {len(ranks)}"
        return f"{law} has {len(names) + 1} unknowns and {needs}; {have}."
    if ranks[-1] < 2 * ranks[0]:
        span = f"{ranks[0]} to {ranks[-1]}"
        return f"{law} needs numbers of ranks that differ by at least a factor of 2; they are {span}."
    columns, rates = _columns(law, ranks), _rounds(study, ranks, lambda sample: sample.rate)
    if not len(rates):
        return f"{law} needs a round that measured every number of ranks that does not share cores; there is none."
    logs = np.log(rates if law == GUSTAFSON else 1 / rates)
    logs -= logs.mean(axis=1, keepdims=True)  # each round has its own scale
    medians = np.exp(np.median(logs, axis=0))
    coefficients, _ = nnls(columns / medians[:, None], np.ones(len(ranks)))
    if not (unit := coefficients[0] + coefficients[1]) > 0:
        return f"{law} cannot be fitted: more ranks are slower, so the time of one rank is not determined."
    fitted = columns @ coefficients
    each = np.exp(logs) / fitted @ np.linalg.pinv(columns / fitted[:, None]).T
    spread = np.delete(each, 1, axis=1) / (each[:, 0] + each[:, 1])[:, None]
    values = zip(names, np.delete(coefficients, 1) / unit, spread.T, strict=True)
    return Fit(
        law=law,
        parameters={name: _enclosing(float(x), np.clip(_student(by_round), 0, 1)) for name, x, by_round in values},
        scale=points[0].speedup.value * float(unit / medians[0]) ** (1 if law == GUSTAFSON else -1),
        misfit=float(np.sqrt(np.mean((fitted / medians - 1) ** 2))),
        aicc=_aicc(logs - np.log(fitted), len(names)),
    )


def _aicc(residuals: np.ndarray, parameters: int) -> float | None:
    """Return Akaike's criterion for few samples (Hurvich and Tsai 1989), without each round's scale, or None."""
    centred = residuals - residuals.mean(axis=1, keepdims=True)
    n, k = centred.size - len(centred), parameters + 1  # the variance is a parameter, too
    smallest = 1e-12  # no clock can resolve a smaller misfit
    return float(n * np.log(max(np.sum(centred**2) / n, smallest)) + 2 * k * n / (n - k - 1)) if n > k + 1 else None


def _best(fits: Sequence[Fit]) -> tuple[str | None, str]:
    """Return the law that fits best, None if the fits are equally good, and the reason as text."""
    if not fits:
        return None, ""
    ranked = sorted((fit.aicc, fit.law) for fit in fits if fit.aicc is not None)
    if len(fits) < 2:
        return None, f"{fits[0].law} is the only law that these points determine."
    if len(ranked) < 2:
        return None, "Too few samples to decide which law fits best."
    (low, best), (high, other) = ranked
    if high - low < SIGNIFICANT:
        return None, f"{best} and {other} fit equally well: their AICc differ by only {high - low:.1f}."
    return best, f"{best} fits best: its AICc is {high - low:.1f} lower than that of {other}."
