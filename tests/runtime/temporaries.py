"""A program whose steps allocate temporary arrays; its result is the number of page faults of the last steps."""

import resource

import numpy as np

from anyrank import Program, State, param


class Temporaries(Program):
    """Temporary arrays of 1 MB, too small for a huge page."""

    steps: int = param(30, "steps")

    def declare(self, state: State) -> None:
        state.scalar("total", 0.0)

    def step(self, state: State) -> None:
        if state.step == 10:
            self.faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        state.total += sum(array[0] for array in [np.ones(1 << 17) for _ in range(8)])

    def result(self, state: State) -> dict:
        return {"faults": resource.getrusage(resource.RUSAGE_SELF).ru_minflt - self.faults}
