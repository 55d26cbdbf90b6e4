"""The resonance of a metal box, by Yee's grid: anyrank run examples/maxwell.py -n 4

    ∂E/∂t = (1/ε) ∇×H,    ∂H/∂t = −(1/µ) ∇×E

with the components of E on the edges of cells and those of H on their faces (Yee, IEEE Trans. Antennas Propag. 14,
1966). E along the metal is 0. Published: a box of a × b × d resonates at (c/2√ε) √((l/a)² + (m/b)² + (n/d)²) (Pozar,
Microwave Engineering, 6.3), and on the grid at the ω of (sin(ωΔt/2)/cΔt)² = Σ (sin(kΔ/2)/Δ)² (Taflove and Hagness,
Computational Electrodynamics, 3rd ed., 4.6).
"""

import math

from anyrank import Kernel, Program, State, advance, elementary, exact, param

LOWER, MIDDLE, UPPER = slice(None, -2), slice(1, -1), slice(2, None)
CENTRE = (MIDDLE, MIDDLE, MIDDLE)


def faraday(new_x, new_y, new_z, hx, hy, hz, ex, ey, ez, cz, cy, cx):
    """Advance H; cz is cΔt/Δz, and E is in units of H."""
    z, y, x = (UPPER, MIDDLE, MIDDLE), (MIDDLE, UPPER, MIDDLE), (MIDDLE, MIDDLE, UPPER)
    new_x[...] = hx[CENTRE] - (cy * (ez[y] - ez[CENTRE]) - cz * (ey[z] - ey[CENTRE]))
    new_y[...] = hy[CENTRE] - (cz * (ex[z] - ex[CENTRE]) - cx * (ez[x] - ez[CENTRE]))
    new_z[...] = hz[CENTRE] - (cx * (ey[x] - ey[CENTRE]) - cy * (ex[y] - ex[CENTRE]))


def ampere(new_x, new_y, new_z, ex, ey, ez, hx, hy, hz, cz, cy, cx):
    """Advance E."""
    z, y, x = (LOWER, MIDDLE, MIDDLE), (MIDDLE, LOWER, MIDDLE), (MIDDLE, MIDDLE, LOWER)
    new_x[...] = ex[CENTRE] + (cy * (hz[CENTRE] - hz[y]) - cz * (hy[CENTRE] - hy[z]))
    new_y[...] = ey[CENTRE] + (cz * (hx[CENTRE] - hx[z]) - cx * (hz[CENTRE] - hz[x]))
    new_z[...] = ez[CENTRE] + (cx * (hy[CENTRE] - hy[x]) - cy * (hx[CENTRE] - hx[y]))


FARADAY, AMPERE = Kernel(faraday), Kernel(ampere)


class Maxwell(Program):
    """The mode TE₁₀₁ of a metal box on Yee's grid (Yee 1966)."""

    deep_halos = True

    cells: list[int] = param([12, 6, 6], "cells along x, y and z", ge=2)
    size: list[float] = param([0.04755, 0.02215, 0.0220], "m, the box along x, y and z", gt=0)
    speed: float = param(299792458 / 1.5, "m/s, the speed of light in the filling, of permittivity 2.25", gt=0)
    courant: float = param(0.9, "Δt as a fraction of the largest stable one", gt=0, lt=1)
    steps: int = param(100, "time steps", ge=3)

    @property
    def spacing(self) -> list[float]:
        return [size / n for size, n in zip(self.size, self.cells, strict=True)][::-1]  # z, y, x

    @property
    def dt(self) -> float:
        return self.courant / (self.speed * math.sqrt(sum(1 / d**2 for d in self.spacing)))

    def declare(self, state: State) -> None:
        box = state.grid(self.cells[::-1], dims=("z", "y", "x"), spacing=self.spacing, boundary="reflect")
        for axis, others in (("x", "yz"), ("y", "xz"), ("z", "xy")):
            box.field(f"e{axis}", at=tuple(others), boundary=dict.fromkeys(others, "antireflect"))
        for axis in "xyz":
            box.field(f"h{axis}", at=axis, boundary={axis: "antireflect"})
        box.constant("mode", at=("x", "z"), halo=0)
        for name in ("newest", "previous", "oldest"):
            state.scalar(name, 0.0, description="amplitude of the mode, after one of the last three steps")

    def constants(self, state: State) -> None:
        z, y, x = state.ey.indices
        wave_x, wave_z = elementary.sin(math.pi * x / self.cells[0]), elementary.sin(math.pi * z / self.cells[2])
        state.mode[...] = wave_x * wave_z + 0 * y

    def setup(self, state: State) -> None:
        state.ey[...] = state.mode.local

    def step(self, state: State) -> None:
        c = [self.speed * self.dt / d for d in self.spacing]
        e, h = [state.ex, state.ey, state.ez], [state.hx, state.hy, state.hz]
        advance(h, FARADAY, *c, reads=e)
        advance(e, AMPERE, *c, reads=h)
        state.oldest, state.previous, state.newest = state.previous, state.newest, exact.dot(state.ey, state.mode)

    def observe(self, state: State) -> dict:
        """Return the amplitude of the mode."""
        return {"amplitude": exact.dot(state.ey, state.mode)}

    def result(self, state: State) -> dict:
        """Return the frequency of the mode, from a(t + Δt) + a(t − Δt) = 2 cos(ωΔt) a(t)."""
        omega = math.acos((state.newest + state.oldest) / (2 * state.previous)) / self.dt
        return {"frequency": omega / (2 * math.pi)}
