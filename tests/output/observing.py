"""A program that observes, in good and in bad ways: the parameter `how`."""

import time

import numpy as np

from anyrank import Program, State, exact, param


class Observing(Program):
    """Counts in a field; `done` decides by a value if `until` is given."""

    n: int = param(12, "points", ge=1)
    steps: int = param(20, "steps", ge=0)
    until: float = param(0.0, "end when the mean is at least this; 0: after `steps`", ge=0)
    pause: float = param(0.0, "seconds per step", ge=0)
    how: str = param("well", "how to observe")
    at: int = param(3, "the first step of a bad way", ge=0)

    def declare(self, state: State) -> None:
        state.field("x", (self.n,))

    def setup(self, state: State) -> None:
        state.x[...] = 0.1 * state.x.indices[0]

    def step(self, state: State) -> None:
        time.sleep(self.pause)
        state.x[...] = state.x.local * 1.01 + 0.3

    def done(self, state: State) -> bool:
        return exact.mean(state.x) >= self.until if self.until else super().done(state)

    def observe(self, state: State) -> dict:
        mean, rank = exact.mean(state.x), state.world.rank
        good = {
            "mean": mean,
            "ends": [exact.min(state.x), exact.max(state.x)],
            "warm": mean > 2,
            "step^2": state.step**2,
        }
        if state.step < self.at or self.how == "well":
            return good
        if self.how == "raise":
            if rank == state.world.size - 1:
                raise ZeroDivisionError("as asked")
            return good
        return {
            "list": [mean],
            "text": {**good, "mean": "warm"},
            "text on one": {**good, "mean": "warm" if rank == 1 else mean},
            "nan": {**good, "mean": float("nan")},
            "rank": {**good, "mean": float(rank)},
            "rank's name": {**good, f"from {rank}": 1},
            "rank's type": {**good, "step^2": np.float64(state.step**2) if rank else state.step**2},
            "rank's order": dict(reversed(good.items())) if rank else good,
            "other name": {**good, "new": 1},
            "fewer": {"mean": mean},
            "other type": {**good, "mean": int(mean)},
            "nothing": {},
        }[self.how]


class Silent(Observing):
    """Does not observe."""

    observe = Program.observe
