"""What a scaling study has measured: samples, each of one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from anyrank.observe.timers import PHASES

__all__ = ["PHASES", "Sample", "Study"]


@dataclass(frozen=True)
class Sample:
    """One measured run.

    `seconds` are those of `steps` steps, in which `work` was done by all ranks together; the first step, which
    warms up, is left out. `phases` has seconds by phase, means over the ranks, which add up to `seconds`. `traffic` has
    means over the ranks for a step: `messages` and `bytes` that a rank sent, `reductions`, and bytes `reduced`.
    `noise` is the standard deviation of a rank's computing seconds from step to step. Samples of one `round` were
    taken one after the other, so that what drifts hits them alike; `crowded` ones had ranks that shared cores.
    """

    ranks: int
    round: int
    seconds: float
    steps: int
    work: float
    nodes: int
    crowded: bool
    phases: dict[str, float]
    traffic: dict[str, float]
    noise: float

    @property
    def rate(self) -> float:
        """Units of work a second."""
        return self.work / self.seconds


@dataclass(frozen=True)
class Study:
    """What a scaling study measured: `strong` solves one problem, in a `weak` one the work grows with the ranks.

    `parameters` are those at one rank; `grow` names the ones that grew.
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
        """The numbers of ranks, ascending."""
        return sorted({sample.ranks for sample in self.samples})

    def at(self, ranks: int) -> list[Sample]:
        """The samples on so many ranks, by round."""
        return sorted((one for one in self.samples if one.ranks == ranks), key=lambda one: one.round)

    def rounds(self) -> list[dict[int, Sample]]:
        """The rounds in which every number of ranks was measured: samples by ranks."""
        found: dict[int, dict[int, Sample]] = {}
        for sample in self.samples:
            found.setdefault(sample.round, {})[sample.ranks] = sample
        return [by for _, by in sorted(found.items()) if len(by) == len(self.ranks())]
