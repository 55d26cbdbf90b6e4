"""Sound in a room with rigid walls, and in a duct with an absorbing end: anyrank run examples/acoustic.py -n 4

    ∂p/∂t = −ρc² (∂u/∂x + ∂v/∂y) − σ p,    ρ ∂u/∂t = −∂p/∂x − σ ρ u,    ρ ∂v/∂t = −∂p/∂y − σ ρ v

with the pressure in the centres of cells and the velocities on their faces (Virieux, Geophysics 51, 1986). Units:
cells, the speed of sound c = 1 and the density ρ = 1. Published: a rigid room has the frequencies
(c/2) √((m/Lx)² + (n/Ly)²) (Kinsler et al., Fundamentals of Acoustics, 4th ed., 9.2), and a layer of the depth d, in
which σ grows as the square of the depth to σ₀, reflects exp(−2 σ₀ d / 3c) at normal incidence (Berenger, J. Comput.
Phys. 114, 1994).
"""

import math

from anyrank import Kernel, Program, State, advance, elementary, exact, param


def accelerate(new_u, new_v, u, v, p, sigma, dt):
    """Advance the velocities; the absorption at a face is the mean of that in its cells, and is centred in time."""
    absorb_x = dt / 4 * (sigma[1:-1, :-2] + sigma[1:-1, 1:-1])
    absorb_y = dt / 4 * (sigma[:-2, 1:-1] + sigma[1:-1, 1:-1])
    new_u[...] = ((1 - absorb_x) * u[1:-1, 1:-1] - dt * (p[1:-1, 1:-1] - p[1:-1, :-2])) / (1 + absorb_x)
    new_v[...] = ((1 - absorb_y) * v[1:-1, 1:-1] - dt * (p[1:-1, 1:-1] - p[:-2, 1:-1])) / (1 + absorb_y)


def compress(new_p, p, u, v, sigma, dt):
    """Advance the pressure."""
    absorb = dt / 2 * sigma[1:-1, 1:-1]
    divergence = (u[1:-1, 2:] - u[1:-1, 1:-1]) + (v[2:, 1:-1] - v[1:-1, 1:-1])
    new_p[...] = ((1 - absorb) * p[1:-1, 1:-1] - dt * divergence) / (1 + absorb)


ACCELERATE, COMPRESS = Kernel(accelerate), Kernel(compress)


class Acoustic(Program):
    """Linear acoustics on a staggered grid, with rigid walls or an absorbing one (Virieux 1986, Berenger 1994)."""

    deep_halos = True

    nx: int = param(60, "cells along x", ge=4)
    ny: int = param(40, "cells along y", ge=4)
    m: int = param(2, "half waves of the room's mode along x", ge=0)
    n: int = param(1, "half waves of the room's mode along y", ge=0)
    layer: int = param(0, "cells of the absorbing layer at the upper end of x; then a pulse replaces the mode", ge=0)
    reflection: float = param(0.01, "what the layer reflects", gt=0, lt=1)
    dt: float = param(0.5, "c Δt/Δx, below 1/√2", gt=0, lt=0.7)
    steps: int = param(200, "time steps", ge=3)

    def declare(self, state: State) -> None:
        room = state.grid((self.ny, self.nx), dims=("y", "x"), boundary="reflect")
        room.field("p", unit="ρc²")
        room.field("u", at="x", unit="c", boundary={"x": "antireflect"})  # 0 on the walls
        room.field("v", at="y", unit="c", boundary={"y": "antireflect"})
        room.constant("sigma", unit="c/Δx", description="absorption")
        room.constant("mode", halo=0, description="the mode of the room")
        for name in ("newest", "previous", "oldest"):
            state.scalar(name, 0.0, description="amplitude of the mode, after one of the last three steps")

    def constants(self, state: State) -> None:
        y, x = state.p.indices
        depth = ((x + 0.5 - (self.nx - self.layer)) / max(self.layer, 1)).clip(0)
        state.sigma[...] = 0 * y - 1.5 * math.log(self.reflection) / max(self.layer, 1) * depth * depth
        wave_x = elementary.cos(math.pi * self.m * (x + 0.5) / self.nx)
        wave_y = elementary.cos(math.pi * self.n * (y + 0.5) / self.ny)
        state.mode[...] = wave_x * wave_y

    def setup(self, state: State) -> None:
        state.p[...] = self.pulse(state.p) if self.layer else state.mode.local
        if self.layer:
            state.u[...] = self.pulse(state.u, self.dt / 2 - 0.5)  # half a step earlier, on faces half a cell lower

    def pulse(self, field, shift=0.0):
        y, x = field.indices
        return elementary.exp(-(((x + shift - self.nx / 3) / (self.nx / 24)) ** 2)) + 0 * y

    def step(self, state: State) -> None:
        advance([state.u, state.v], ACCELERATE, self.dt, reads=[state.p, state.sigma])
        state.p.advance(COMPRESS, self.dt, reads=[state.u, state.v, state.sigma])
        state.oldest, state.previous, state.newest = state.previous, state.newest, exact.dot(state.p, state.mode)

    def observe(self, state: State) -> dict:
        return {"amplitude": exact.dot(state.p, state.mode), "largest_pressure": exact.max(state.p)}

    def result(self, state: State) -> dict:
        """Return the largest pressure, or the frequency of the mode, from a(t + Δt) + a(t − Δt) = 2 cos(ωΔt) a(t)."""
        if self.layer:
            return {"largest_pressure": exact.max(state.p)}
        omega = math.acos((state.newest + state.oldest) / (2 * state.previous)) / self.dt
        return {"frequency": omega / (2 * math.pi)}
