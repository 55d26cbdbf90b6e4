"""Laws of scaling: the speed-ups that a study measured, and the laws that describe them, with their uncertainty.

All is said of rates, work a second: so a strong study, whose work is one, and a weak one, whose work grows, are treated
alike, and it does not matter that a size was rounded when it grew. Ratios are taken within a round, so that drift of
the machine from round to round cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from anyrank.scaling.measured import PHASES, Sample, Study

AMDAHL, GUSTAFSON, USL = "Amdahl's law", "Gustafson's law", "Universal Scalability Law"
#: The laws that may hold for a kind of study, and what they do not know: fractions of the work on one rank.
LAWS = {"strong": (AMDAHL, USL), "weak": (GUSTAFSON, USL)}
PARAMETERS = {AMDAHL: ("s",), GUSTAFSON: ("s",), USL: ("σ", "κ")}
#: Smaller differences of Akaike's criterion mean nothing (Burnham and Anderson 2002, section 2.6).
TELLING = 2.0


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % confidence interval, which is empty where there are fewer than three repeats."""

    value: float
    interval: tuple[float, ...] = ()

    def through(self, function: Callable[[float], float]) -> Estimate:
        """A function of it that only rises or only falls."""
        return Estimate(function(self.value), tuple(sorted(map(function, self.interval))))


@dataclass(frozen=True)
class Point:
    """What was measured on so many ranks.

    `speedup` is the rate as a multiple of that of the smallest number of ranks, times that number: scaled speed-up in
    a weak study; `rounds` has that of each round. `serial` is Karp and Flatt's fraction, if one rank was measured.
    `phases` are shares of the time. `slowdown` is how many times as long as there a rank computes on as much work.
    """

    ranks: int
    crowded: bool
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
    """A law, fitted to the points whose ranks share no cores.

    `scale` is the speed-up that it gives one rank, `misfit` the root mean square of its relative distance from the
    points, `aicc` Akaike's criterion, unless the samples are too few for it.
    """

    law: str
    parameters: dict[str, Estimate]
    scale: float
    misfit: float
    aicc: float | None

    def speedup(self, ranks: Sequence[int] | np.ndarray) -> np.ndarray:
        """The speed-up on these numbers of ranks, by the law."""
        first, *more = (one.value for one in self.parameters.values())
        found = _columns(self.law, ranks) @ np.array([first, 1 - first, *more])
        return np.asarray(self.scale * (found if self.law == GUSTAFSON else 1 / found))


@dataclass(frozen=True)
class Analysis:
    """What a study says: its `best` law, the words why, or why there is none, and for each law that is `missing`."""

    kind: str
    points: tuple[Point, ...]  # by ranks
    fits: tuple[Fit, ...]
    best: str | None
    verdict: str
    missing: tuple[str, ...]


def analyse(study: Study) -> Analysis:
    """Speed-up, efficiency and Karp–Flatt fraction of each number of ranks, and the laws that can be fitted."""
    points = tuple(_point(study, ranks) for ranks in study.ranks())
    tried = [_fit(law, study, [one for one in points if not one.crowded]) for law in LAWS[study.kind]]
    fits = tuple(one for one in tried if isinstance(one, Fit))
    return Analysis(study.kind, points, fits, *_best(fits), tuple(one for one in tried if isinstance(one, str)))


def _point(study: Study, ranks: int) -> Point:
    samples, base = study.at(ranks), study.ranks()[0]
    rounds = base * _ratios(study, ranks, lambda one: one.rate)
    speedup = _median(rounds) if ranks > base else Estimate(float(base))
    return Point(
        ranks=ranks,
        crowded=any(one.crowded for one in samples),
        seconds=_median(np.array([one.seconds for one in samples])),
        rate=_median(np.array([one.rate for one in samples])),
        speedup=speedup,
        efficiency=speedup.through(lambda one: one / ranks),
        # Karp and Flatt, CACM 33(5), 1990, 539.
        serial=speedup.through(lambda one: (1 / one - 1 / ranks) / (1 - 1 / ranks)) if base == 1 < ranks else None,
        phases={name: float(np.mean([one.phases[name] / one.seconds for one in samples])) for name in PHASES},
        slowdown=_median(_ratios(study, ranks, lambda one: one.ranks * one.phases["compute"] / one.work)),
        rounds=tuple(rounds.tolist()),
    )


def _ratios(study: Study, ranks: int, of: Callable[[Sample], float]) -> np.ndarray:
    """What a sample has on so many ranks as a multiple of that on the smallest number, by round."""
    base = study.ranks()[0]
    paired = _rounds(study, (base, ranks), of)
    if not len(paired):  # no round has both yet, so that drift stays in
        paired = np.array([[np.median([of(one) for one in study.at(count)]) for count in (base, ranks)]])
    return np.asarray(paired[:, 1] / paired[:, 0])


def _rounds(study: Study, ranks: Sequence[int], of: Callable[[Sample], float]) -> np.ndarray:
    """What samples have, by round and number of ranks, of the rounds in which all these numbers were measured."""
    found = {(one.round, one.ranks): of(one) for one in study.samples}
    rounds = sorted({number for number, _ in found})
    whole = [[found[number, one] for one in ranks] for number in rounds if all((number, one) in found for one in ranks)]
    return np.array(whole).reshape(-1, len(ranks))


def _median(values: np.ndarray) -> Estimate:
    """The median of positive numbers, with an interval.

    From six on, order statistics, which hold for any noise. Of fewer, even the extremes enclose the median with less
    than 95 %, so it is Student's interval of the logarithms: right for log-normal noise, and 93 % or more for five
    values that are uniform, have an exponential tail, or outliers in a tenth of the runs.
    """
    from scipy.special import bdtr

    if len(values) < 6:
        return _around(float(np.median(values)), np.exp(_student(np.log(values))))
    below = np.arange(len(values) // 2)
    first = below[bdtr(below, len(values), 0.5) <= 0.025][-1]
    return _around(float(np.median(values)), np.sort(values)[[first, -1 - first]])


def _student(values: np.ndarray) -> np.ndarray:
    """Student's 95 % interval of the mean of normal numbers, of three at least; else empty."""
    from scipy.special import stdtrit

    if len(values) < 3:
        return np.empty(0)
    half = stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values))
    return np.array([values.mean() - half, values.mean() + half])


def _around(value: float, ends: np.ndarray) -> Estimate:
    return Estimate(value, (float(min(*ends, value)), float(max(*ends, value))) if ends.size else ())


def _columns(law: str, ranks: Sequence[int] | np.ndarray) -> np.ndarray:
    """What a law is linear in: the seconds that a unit of work takes, or with Gustafson's law the rate.

    Amdahl (1967): A + B/p; Gustafson (1988): A + B·p; Gunther's Universal Scalability Law (2007): A + B/p + C·(p − 1).
    With A + B as the unit, A is the serial fraction s, or the contention σ, and C the coherency κ.
    """
    p = np.asarray(ranks, float)
    return np.stack({AMDAHL: (p**0, 1 / p), GUSTAFSON: (p**0, p), USL: (p**0, 1 / p, p - 1)}[law], axis=-1)


def _fit(law: str, study: Study, points: Sequence[Point]) -> Fit | str:
    """A law by least squares of relative errors, or why there is none.

    The law is that of the medians over rounds, with no coefficient below zero. Its intervals are Student's over the
    rounds, each fitted alone and free of bounds, as estimates held at a bound are biased; then they are cut at 0 and 1.
    They cover noise, and drift between rounds, but not that the law is wrong, or drift within every round.
    """
    from scipy.optimize import nnls

    names, ranks = PARAMETERS[law], [one.ranks for one in points]
    if len(ranks) < len(names) + 2:
        needs = f"needs at least {len(names) + 2} rank counts that do not share cores"
        return (
            f"{law} has {len(names) + 1} unknowns and {needs}; there {'is' if len(ranks) == 1 else 'are'} {len(ranks)}."
        )
    if ranks[-1] < 2 * ranks[0]:
        return f"{law} needs rank counts of which one is at least twice another; these are {ranks[0]} to {ranks[-1]}."
    columns, rates = _columns(law, ranks), _rounds(study, ranks, lambda one: one.rate)
    if not len(rates):
        return f"{law} needs a round that measured every rank count that does not share cores; there is none."
    logs = np.log(rates if law == GUSTAFSON else 1 / rates)
    logs -= logs.mean(axis=1, keepdims=True)  # each round has a scale of its own
    middle = np.exp(np.median(logs, axis=0))
    found, _ = nnls(columns / middle[:, None], np.ones(len(ranks)))
    if not (unit := found[0] + found[1]) > 0:
        return f"{law} cannot be fitted: more ranks are slower, and nothing tells what one would do."
    fitted = columns @ found
    each = np.exp(logs) / fitted @ np.linalg.pinv(columns / fitted[:, None]).T
    spread = np.delete(each, 1, axis=1) / (each[:, 0] + each[:, 1])[:, None]
    values = zip(names, np.delete(found, 1) / unit, spread.T, strict=True)
    return Fit(
        law=law,
        parameters={name: _around(float(one), np.clip(_student(by_round), 0, 1)) for name, one, by_round in values},
        scale=points[0].speedup.value * float(unit / middle[0]) ** (1 if law == GUSTAFSON else -1),
        misfit=float(np.sqrt(np.mean((fitted / middle - 1) ** 2))),
        aicc=_aicc(logs - np.log(fitted), len(names)),
    )


def _aicc(residuals: np.ndarray, parameters: int) -> float | None:
    """Akaike's criterion for few samples (Hurvich and Tsai 1989) when each round's scale is out; None for too few."""
    inner = residuals - residuals.mean(axis=1, keepdims=True)
    n, k = inner.size - len(inner), parameters + 1  # the variance is one
    least = 1e-12  # of misfits that no clock can tell from none
    return float(n * np.log(max(np.sum(inner**2) / n, least)) + 2 * k * n / (n - k - 1)) if n > k + 1 else None


def _best(fits: Sequence[Fit]) -> tuple[str | None, str]:
    """The law that fits best, if one can be said to, and what is to be said of it."""
    if not fits:
        return None, ""
    ranked = sorted((one.aicc, one.law) for one in fits if one.aicc is not None)
    if len(fits) < 2:
        return None, f"{fits[0].law} is the only one that these points allow."
    if len(ranked) < 2:
        return None, "Too few samples to tell which law fits best."
    (low, best), (high, other) = ranked
    if high - low < TELLING:
        return None, f"No telling {best} and {other} apart: their AICc differ by {high - low:.1f}, which means nothing."
    return best, f"{best} fits best: its AICc is {high - low:.1f} lower than that of {other}."
