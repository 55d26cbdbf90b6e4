"""The measurements of a scaling study: samples, one for each run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from anyrank.observe.timers import PHASES

__all__ = ["PHASES", "Sample", "ScalingStudy"]


@dataclass(frozen=True)
class Sample:
    """One measured run.

    `seconds` is the time of `steps` steps, without the first (warm-up) step; `work` is the work of all ranks in them.
    `phases` has the seconds of each phase, means over the ranks, which add up to `seconds`. `traffic` has means over
    the ranks per step: `messages` and `bytes` that a rank sent, `reductions`, and bytes `reduced`. `noise` is the
    standard deviation of a rank's computing seconds from step to step. Samples of one `round` were measured in
    sequence, so that drift affects them equally. In `oversubscribed` samples ranks shared cores.
    """

    ranks: int
    round: int
    seconds: float
    steps: int
    work: float
    nodes: int
    oversubscribed: bool
    phases: dict[str, float]
    traffic: dict[str, float]
    noise: float

    @property
    def rate(self) -> float:
        """Units of work per second."""
        return self.work / self.seconds


@dataclass(frozen=True)
class ScalingStudy:
    """A measured scaling study: `strong` has constant work, in `weak` the work grows with the number of ranks.

    `parameters` are those for one rank; `grow` names the parameters that grow.
    """

    kind: str
    program: str
    source: str
    parameters: dict[str, Any]
    options: dict[str, Any]
    grow: tuple[str, ...]
    unit: str
    samples: tuple[Sample, ...]
    machine: dict[str, Any]

    def ranks(self) -> list[int]:
        """Return the numbers of ranks in ascending order."""
        return sorted({sample.ranks for sample in self.samples})

    def at(self, ranks: int) -> list[Sample]:
        """Return the samples on this number of ranks, by round."""
        return sorted((sample for sample in self.samples if sample.ranks == ranks), key=lambda sample: sample.round)

    def rounds(self) -> list[dict[int, Sample]]:
        """Return the complete rounds: for each, the samples by number of ranks."""
        by_round: dict[int, dict[int, Sample]] = {}
        for sample in self.samples:
            by_round.setdefault(sample.round, {})[sample.ranks] = sample
        return [by for _, by in sorted(by_round.items()) if len(by) == len(self.ranks())]
