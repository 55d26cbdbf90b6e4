"""The resonance of a metal box, by Yee's grid: anyrank run examples/maxwell.py -n 4

    ∂E/∂t = (1/ε) ∇×H,    ∂H/∂t = −(1/µ) ∇×E

with the components of E on the edges of cells and those of H on their faces (Yee, IEEE Trans. Antennas Propag. 14,
1966). E along the metal is 0. Published: a box of a × b × d resonates at (c/2√ε) √((l/a)² + (m/b)² + (n/d)²) (Pozar,
Microwave Engineering, 6.3), and on the grid at the ω of (sin(ωΔt/2)/cΔt)² = Σ (sin(kΔ/2)/Δ)² (Taflove and Hagness,
Computational Electrodynamics, 3rd ed., 4.6).
"""

import math

from anyrank import Kernel, Program, State, advance, elementary, exact, param


def faraday(new_x, new_y, new_z, hx, hy, hz, ex, ey, ez, c):
    """Advance H; c are cΔt/Δz, cΔt/Δy and cΔt/Δx, and E is in units of H."""
    cz, cy, cx = c
    own = (slice(1, -1),) * 3
    z, y, x = (slice(2, None), *own[1:]), (own[0], slice(2, None), own[2]), (*own[:2], slice(2, None))
    new_x[...] = hx[own] - (cy * (ez[y] - ez[own]) - cz * (ey[z] - ey[own]))
    new_y[...] = hy[own] - (cz * (ex[z] - ex[own]) - cx * (ez[x] - ez[own]))
    new_z[...] = hz[own] - (cx * (ey[x] - ey[own]) - cy * (ex[y] - ex[own]))


def ampere(new_x, new_y, new_z, ex, ey, ez, hx, hy, hz, c):
    """Advance E."""
    cz, cy, cx = c
    own = (slice(1, -1),) * 3
    z, y, x = (slice(None, -2), *own[1:]), (own[0], slice(None, -2), own[2]), (*own[:2], slice(None, -2))
    new_x[...] = ex[own] + (cy * (hz[own] - hz[y]) - cz * (hy[own] - hy[z]))
    new_y[...] = ey[own] + (cz * (hx[own] - hx[z]) - cx * (hz[own] - hz[x]))
    new_z[...] = ez[own] + (cx * (hy[own] - hy[x]) - cy * (hx[own] - hx[y]))


FARADAY, AMPERE = Kernel(faraday), Kernel(ampere)
LIGHT = 299792458.0  # m/s


class Maxwell(Program):
    """The mode TE₁₀₁ of a metal box on Yee's grid (Yee 1966)."""

    deep_halos = True

    cells: list[int] = param([12, 6, 6], "cells along x, y and z", ge=2)
    size: list[float] = param([0.04755, 0.02215, 0.0220], "m, the box along x, y and z", gt=0)
    permittivity: float = param(2.25, "of the filling", ge=1)
    courant: float = param(0.9, "Δt as a fraction of the largest stable one", gt=0, lt=1)
    steps: int = param(100, "time steps", ge=3)

    @property
    def spacing(self) -> list[float]:
        return [size / n for size, n in zip(self.size, self.cells, strict=True)][::-1]  # z, y, x

    @property
    def dt(self) -> float:
        fastest = math.sqrt(sum(1 / d**2 for d in self.spacing))
        return self.courant * math.sqrt(self.permittivity) / (LIGHT * fastest)

    def declare(self, state: State) -> None:
        box = state.grid(self.cells[::-1], dims=("z", "y", "x"), spacing=self.spacing, boundary="reflect")
        for axis, others in (("x", "yz"), ("y", "xz"), ("z", "xy")):
            box.field(f"e{axis}", at=tuple(others), boundary=dict.fromkeys(others, "antireflect"))
        for axis in "xyz":
            box.field(f"h{axis}", at=axis, boundary={axis: "antireflect"})
        box.constant("mode", at=("x", "z"), halo=0)
        for name in ("now", "before", "earlier"):
            state.scalar(name, 0.0, description="the amplitude of the mode, after this step or earlier ones")

    def constants(self, state: State) -> None:
        z, y, x = state.ey.indices
        state.mode[...] = (
            elementary.sin(math.pi * x / self.cells[0]) * elementary.sin(math.pi * z / self.cells[2]) + 0 * y
        )

    def setup(self, state: State) -> None:
        state.ey[...] = state.mode.local

    def step(self, state: State) -> None:
        c = [LIGHT / math.sqrt(self.permittivity) * self.dt / d for d in self.spacing]
        e, h = [state.ex, state.ey, state.ez], [state.hx, state.hy, state.hz]
        advance(h, FARADAY, c, reads=e)
        advance(e, AMPERE, c, reads=h)
        state.earlier, state.before, state.now = state.before, state.now, exact.dot(state.ey, state.mode)

    def result(self, state: State) -> dict:
        """Return the frequency of the mode, from a(t + Δt) + a(t − Δt) = 2 cos(ωΔt) a(t)."""
        omega = math.acos((state.now + state.earlier) / (2 * state.before)) / self.dt
        return {"frequency": omega / (2 * math.pi)}
