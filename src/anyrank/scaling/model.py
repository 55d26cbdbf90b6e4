"""A model that predicts a program's time on more ranks than are available, from a study and network parameters.

The study gives the time of computing and of other local work. LogGP (network.py) gives the time of messages, and the
Layout of the program their partners. docs/scaling-model.md describes the assumptions and their limits.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, sqrt
from statistics import NormalDist, median
from typing import Any, cast

import numpy as np

from anyrank.device import ShapeOnlyDevice
from anyrank.errors import UsageError
from anyrank.exchange import Halo
from anyrank.exchange.advance import OVERLAP_POINTS
from anyrank.field import Field
from anyrank.observe.timers import Timers
from anyrank.program import Program
from anyrank.runtime.programs import load
from anyrank.scaling.measured import PHASES, Sample, ScalingStudy
from anyrank.scaling.network import NETWORK, NODE, Network, message_rounds
from anyrank.scaling.study_folder import grown
from anyrank.world import World

#: Approximate bytes of the agreement at every step; MPI reduces so few bytes with the messages of a single number.
AGREEMENT = 8


@dataclass(frozen=True)
class Prediction:
    """The predicted seconds for the number of steps of the study's samples, also by PHASES, and the work in them.

    `low` and `high` are the minimum and maximum over the rounds of the study with the quartiles of the network.
    """

    ranks: int
    seconds: float
    low: float
    high: float
    phases: dict[str, float]
    work: float


@dataclass(frozen=True)
class LargestBlock:
    """The decomposition of a program on a number of ranks: the `work` of a step, and the share of the largest block.

    `share` is that block's fraction of the work. `inner` is the fraction of the block that is computed during the halo
    exchange, 0 without overlap. `messages` has the rank and the bytes of each message of an exchange of all halos.
    """

    ranks: int
    work: float
    share: float
    inner: float
    rank: int
    messages: tuple[tuple[int, int], ...]


class _VirtualRank:
    """A rank of a world that does not exist, and its communicator: it records the messages that would be sent."""

    recorder = None

    def __init__(self, rank: int, size: int):
        self.rank, self.size, self.comm, self.timers = rank, size, self, Timers()
        self.sent: list[tuple[int, int]] = []

    def tag(self) -> int:
        return 0

    def Recv_init(self, buffer: Any, rank: int, tag: int) -> None:  # noqa: N802
        pass

    def Send_init(self, buffer: Any, rank: int, tag: int) -> None:  # noqa: N802
        self.sent.append((rank, buffer[0].nbytes))


def _fields(program: Program, split: str, world: _VirtualRank) -> list[Field]:
    state = program.state_type(cast(World, world), split)
    state.device = ShapeOnlyDevice()
    program.declare(state)
    return [*state.fields()]


def largest_block(program: Program, split: str, ranks: int) -> LargestBlock:
    """Return the shape of a program on `ranks` ranks with this `--split`. UsageError if it cannot be split that far."""
    work, fields = program.work()[0], _fields(program, split, _VirtualRank(0, ranks))
    if not fields:
        return LargestBlock(ranks, work, 1 / ranks, 0.0, 0, ())
    layout = max(fields, key=lambda field: (any(field.halo), field.layout.size)).cells
    widths = [np.diff(cut) for cut in layout.cuts]
    # One of the largest blocks in the middle of the domain, which has all its neighbours.
    rank = layout.rank_at([int(large[len(large) // 2]) for large in (np.flatnonzero(w == w.max()) for w in widths)])
    world = _VirtualRank(rank, ranks)
    exchanges: dict[Any, list[Field]] = {}
    for field in _fields(program, split, world):
        if any(field.halo):
            exchanges.setdefault((field.cells.cuts, field.periodic), []).append(field)
    inner = 0.0
    for fields in exchanges.values():
        exchange, halos = Halo(fields, 0), np.max([field.halo for field in fields], axis=0)
        block = fields[0].cells.local_shape
        points = float(np.prod([n - 2 * halos[axis] * (axis in exchange.cut_axes) for axis, n in enumerate(block)]))
        if exchange.cut_axes and points >= OVERLAP_POINTS and fields[0].cells.cuts == layout.cuts:
            inner = points / float(np.prod(block))
    return LargestBlock(
        ranks, work, float(np.prod([w.max() for w in widths])) / layout.size, inner, rank, tuple(world.sent)
    )


def slowest(ranks: int) -> float:
    """Return the expected maximum of `ranks` normal numbers, in standard deviations (Blom 1958); 0 for one."""
    return NormalDist().inv_cdf((ranks - 0.375) / (ranks + 0.25)) if ranks > 1 else 0.0


@dataclass(frozen=True)
class _Fit:
    """The parameters of a step, fitted to one round of a study: seconds and counts."""

    fixed: float
    per_work: float
    contention: float
    noise: float
    other: float
    checkpoint: float
    #: Exchanges per step, and their bytes relative to one exchange of all halos; reductions per step, bytes of one.
    exchanges: float
    bytes: float
    reductions: float
    reduced: float
    #: Measured time that the network does not explain: per message, per step with reductions, and a factor of idleness.
    packing: float = 0.0
    calling: float = 0.0
    waiting: float = 1.0

    def compute(self, work: float, on_node: int) -> float:
        return self.fixed + work * (self.per_work + self.contention * (on_node - 1))


class Model:
    """Predicts the time of a study's program on any number of ranks, with `per_node` ranks on each node."""

    def __init__(self, study: ScalingStudy, network: Network, samples: Sequence[Sample], per_node: int | None = None):
        self.study, self.network, self._program = study, network, load(study.source)
        self.per_node = per_node or max(ceil(sample.ranks / sample.nodes) for sample in samples)
        self.steps = int(median(sample.steps for sample in samples))
        self.shape = lru_cache(maxsize=None)(self._shape)
        complete = replace(study, samples=tuple(samples)).rounds()
        self._fits = [
            self._calibrate([*by.values()]) for by in complete or [{sample.ranks: sample for sample in samples}]
        ]

    @classmethod
    def of(
        cls, study: ScalingStudy, network: Network, using: Collection[int] | None = None, per_node: int | None = None
    ) -> Model:
        """Calibrate a model of a study on a network, with all samples or those on `using` ranks.

        Samples whose ranks share cores are left out. `per_node` is by default the largest number of ranks per node in
        the study. Raises UsageError if no sample is left.
        """
        kept = [
            sample for sample in study.samples if not sample.oversubscribed and (using is None or sample.ranks in using)
        ]
        if not kept:
            raise UsageError(
                f"the study of {study.program} has no sample in which each rank has its own core; a prediction needs "
                "one. Measure on fewer ranks."
            )
        return cls(study, network, kept, per_node)

    def predict(self, ranks: int) -> Prediction:
        """Predict the time on `ranks` ranks. UsageError if it cannot be split that far, or a link is not known."""
        shape = self.shape(ranks)
        found = [self._phases(fit, shape) for fit in self._fits]
        low, high = ([sum(self._phases(fit, shape, which).values()) for fit in self._fits] for which in (1, 2))
        phases = {name: self.steps * median(of_fit[name] for of_fit in found) for name in PHASES}
        total = sum(phases.values())
        spread = min(total, self.steps * min(low)), max(total, self.steps * max(high))
        return Prediction(ranks, total, *spread, phases, shape.work * self.steps)

    def _shape(self, ranks: int) -> LargestBlock:
        study, parameters = self.study, self.study.parameters
        if study.kind == "weak":
            parameters = grown(self._program, parameters, study.grow, ranks)
        return largest_block(self._program(**parameters), study.options.get("split", "auto"), ranks)

    def _link(self, kind: str) -> str:
        if kind not in self.network.links:
            raise UsageError(
                f"the network must have a link of the kind {kind!r} for {self.per_node} rank(s) per node. Measure one "
                "(anyrank doctor --network -n 2 --hosts a,b), or add its L, o, g and G to the file."
            )
        return kind

    def _phases(self, fit: _Fit, shape: LargestBlock, which: int = 0) -> dict[str, float]:
        """Return the seconds of a step by PHASES."""
        ranks, on_node = shape.ranks, min(shape.ranks, self.per_node)
        largest = fit.compute(shape.work * shape.share, on_node)
        compute = fit.compute(shape.work / ranks, on_node)
        idle = (largest - compute) * (ranks > 1) + fit.waiting * fit.noise * sqrt(compute) * slowest(ranks)
        inner = shape.inner * largest
        own, travel = self._exchange(fit, shape, which)
        exchange = fit.exchanges * max(own, travel - inner) + fit.packing * fit.exchanges * len(shape.messages)
        reduce = fit.reductions * self._reduction(ranks, fit.reduced, which)[0]
        whole, longest_round = self._reduction(ranks, AGREEMENT, which)
        # The agreement progresses only within MPI calls: one round overlaps with each part of the computing.
        beside = exchange + reduce + idle + sum(min(part, longest_round) for part in (inner, largest - inner))
        reduce += max(0.0, whole - beside) + fit.calling * (ranks > 1)
        values = compute, exchange, reduce, fit.checkpoint * shape.work, idle, fit.other
        return dict(zip(PHASES, values, strict=True))

    def _exchange(self, fit: _Fit, shape: LargestBlock, which: int) -> tuple[float, float]:
        """Return the seconds that a rank works in an exchange, and those until the last message; all start at once."""
        if not shape.messages or not fit.exchanges:
            return 0.0, 0.0
        own, following, alone = 0.0, [], []
        for rank, size in shape.messages:
            near = rank // self.per_node == shape.rank // self.per_node
            link, n = self.network.links[self._link(NODE if near else NETWORK)], size * fit.bytes / fit.exchanges
            own += 2 * link.o[which]
            following.append(max(link.o[which], link.g[which]) + n * link.G[which])
            alone.append(link.seconds(n, which))
        return own, max(t + sum(following) - f for t, f in zip(alone, following, strict=True))

    def _reduction(self, ranks: int, size: float, which: int) -> tuple[float, float]:
        """Return the seconds of an all-reduce, within nodes and then between nodes, and of its longest round."""
        near, nodes = min(ranks, self.per_node), ceil(ranks / self.per_node)
        counts = {kind: message_rounds(n) for kind, n in ((NODE, near), (NETWORK, nodes)) if n > 1}
        times = {kind: self.network.round(self._link(kind), size, which) for kind in counts}
        return sum(counts[kind] * times[kind] for kind in counts), max(times.values(), default=0.0)

    def _calibrate(self, samples: Sequence[Sample]) -> _Fit:
        """Fit the parameters of a step to these samples, including the time that the network does not explain."""
        several = [sample for sample in samples if sample.ranks > 1]
        a_step = {
            sample.ranks: {name: value / sample.steps for name, value in sample.phases.items()} for sample in samples
        }
        shapes = {sample.ranks: self.shape(sample.ranks) for sample in samples}

        def typical(values: Sequence[float]) -> float:
            return median(values) if values else 0.0

        sending = [(sample, shapes[sample.ranks].messages) for sample in several if shapes[sample.ranks].messages]
        reductions = typical([sample.traffic["reductions"] for sample in several])
        fit = _Fit(
            *_computing(samples),
            noise=typical([sample.noise / sqrt(max(a_step[sample.ranks]["compute"], 1e-12)) for sample in samples]),
            other=typical([a_step[sample.ranks]["other"] for sample in samples]),
            checkpoint=typical([sample.phases["checkpoint"] / sample.work for sample in samples]),
            # The counts are means over ranks, and a shape is that of a rank with all neighbours: the maximum is right.
            exchanges=max((sample.traffic["messages"] / len(sent) for sample, sent in sending), default=1.0),
            bytes=max((sample.traffic["bytes"] / sum(n for _, n in sent) for sample, sent in sending), default=1.0),
            reductions=reductions,
            reduced=typical([sample.traffic["reduced"] for sample in several]) / max(reductions, 1e-12),
        )
        exchange, reduce, idle = [], [], [1.0] if not several else []
        for sample in several:
            shape, measured = shapes[sample.ranks], a_step[sample.ranks]
            expected, noise = self._phases(replace(fit, waiting=0.0), shape), self._phases(fit, shape)["idle"]
            if shape.messages and fit.exchanges:
                exchange.append((measured["exchange"] - expected["exchange"]) / fit.exchanges / len(shape.messages))
            reduce.append(measured["reduce"] - expected["reduce"])
            idle.append((measured["idle"] - expected["idle"]) / max(noise - expected["idle"], 1e-12))
        packing, calling, waiting = (max(0.0, typical(some)) for some in (exchange, reduce, idle))
        return replace(fit, packing=packing, calling=calling, waiting=waiting)


def _computing(samples: Sequence[Sample]) -> tuple[float, float, float]:
    """Fit the computing time of a step: a constant, the time per unit of work, its increase per other rank of the node.

    Fitted by least squares of relative errors, without negative values. If the work per rank changes with the number of
    ranks (ranks of one node share a problem), contention and the constant cannot be distinguished; then contention is
    fitted.
    """
    from scipy.optimize import nnls  # type: ignore[import-untyped]

    work = np.array([sample.work / sample.steps / sample.ranks for sample in samples])
    others = np.array([ceil(sample.ranks / sample.nodes) - 1 for sample in samples])
    seconds = np.maximum([sample.phases["compute"] / sample.steps for sample in samples], 1e-12)
    columns, used = {1: work / seconds, 2: work * others / seconds, 0: 1 / seconds}, [1]
    for k in (2, 0):
        trial = np.stack([columns[j] / np.abs(columns[j]).max(initial=1e-300) for j in (*used, k)], axis=1)
        if np.linalg.matrix_rank(trial, tol=1e-6) > len(used):
            used.append(k)
    scale = np.array([columns[j].max() for j in used])
    coefficients, _ = nnls(np.stack([columns[j] for j in used], axis=1) / scale, np.ones(len(samples)))
    result = dict(zip(used, (coefficients / scale).tolist(), strict=True))
    return result.get(0, 0.0), result.get(1, 0.0), result.get(2, 0.0)
