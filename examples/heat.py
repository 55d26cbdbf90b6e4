"""Heat on a periodic plate, the program of the README: anyrank run examples/heat.py -n 4"""

from anyrank import Kernel, Program, State, exact, param


def heat_step(new, T, nu):
    """One forward Euler step: new is (m, n), T is (m + 2, n + 2), with its halo."""
    new[...] = T[1:-1, 1:-1] + nu * (T[:-2, 1:-1] + T[2:, 1:-1] + T[1:-1, :-2] + T[1:-1, 2:] - 4 * T[1:-1, 1:-1])


HEAT_STEP = Kernel(heat_step)


class Heat(Program):
    """Heat on a periodic plate, forward Euler (LeVeque 2007, ch. 9)."""

    deep_halos = True  # --halo-steps may be used: only setup and the kernel write T

    n: int = param(512, "grid points per side", ge=3)
    nu: float = param(0.1, "κ Δt/Δx², at most 0.25", gt=0, le=0.25)
    steps: int = param(1000, "time steps", ge=0)

    def declare(self, state: State) -> None:
        state.field("T", (self.n, self.n), unit="K", halo=1, boundary="periodic")

    def setup(self, state: State) -> None:
        j, i = state.T.indices  # global indices of this rank's block
        state.T[...] = (i + j) % 2 + (i // 64 + j // 64) % 2

    def step(self, state: State) -> None:
        state.T.advance(HEAT_STEP, self.nu)  # exchanges the halo, computes, and swaps

    def observe(self, state: State) -> dict:  # a row of series.csv, every --observe-every steps
        return {"mean": exact.mean(state.T), "hottest": exact.max(state.T)}

    def result(self, state: State) -> dict:
        return {"mean": exact.mean(state.T), "hottest": exact.max(state.T)}

    def work(self) -> tuple[float, str]:
        return self.n**2, "points"
