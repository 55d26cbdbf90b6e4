"""A program with an initial state and a forcing from files."""

from __future__ import annotations

from pathlib import Path

from anyrank import Program, State, param


class Forced(Program):
    """A field that is heated by a file."""

    start: Path = param(Path("start.nc"), "the initial state")
    heating: Path = param(Path("heating.nc"), "the heating")
    dt: float = param(0.75, "time step")
    check_end: bool = param(True, "refuse a file that ends too early")
    steps: int = param(8, "steps")

    def declare(self, state: State) -> None:
        T = state.field("T", (6, 7), unit="K", dims=("y", "x"))
        until = self.steps * self.dt if self.check_end else None
        state.forcing(self.heating, "q", like=T, until=until)
        state.forcing(self.heating, "sun", until=until)

    def setup(self, state: State) -> None:
        state.T.read(self.start)

    def step(self, state: State) -> None:
        time = state.step * self.dt
        state.T[...] += self.dt * state.q.at(time) * state.sun.at(time)
