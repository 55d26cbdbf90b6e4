"""The flow in a box with a moving lid: anyrank run examples/cavity.py -n 2

    ∂u/∂t = −∇·(u u) − ∇p + (1/Re) ∇²u,    ∂p/∂t = −c² ∇·u

until the flow is steady: artificial compressibility (Chorin, J. Comput. Phys. 2, 1967) on the staggered grid of Harlow
and Welch (Phys. Fluids 8, 1965). The lid at the upper end of y moves with the velocity 1. Published: the velocities on
the lines through the centre (Ghia, Ghia and Shin, J. Comput. Phys. 48, 1982).
"""

from anyrank import Kernel, Program, State, advance, exact, param


def accelerate(new_u, u, v, p, h, dt, nu):
    """Advance u with centred differences; h is the size of a cell."""
    centre, west, east, south, north = u[1:-1, 1:-1], u[1:-1, :-2], u[1:-1, 2:], u[:-2, 1:-1], u[2:, 1:-1]
    v_south, v_north = v[1:-1, :-2] + v[1:-1, 1:-1], v[2:, :-2] + v[2:, 1:-1]  # twice v at the ends of the face
    convection_x = (centre + east) * (centre + east) - (west + centre) * (west + centre)
    convection_y = v_north * (centre + north) - v_south * (south + centre)
    diffusion = west + east + south + north - 4 * centre
    pressure = p[1:-1, 1:-1] - p[1:-1, :-2]
    new_u[...] = centre + dt / h * (nu / h * diffusion - (convection_x + convection_y) / 4 - pressure)


def momentum(new_u, new_v, u, v, p, h, dt, nu):
    """Advance both velocities: the equation of v is that of u with x and y exchanged."""
    accelerate(new_u, u, v, p, h, dt, nu)
    accelerate(new_v.T, v.T, u.T, p.T, h, dt, nu)


def continuity(new_p, new_change, p, change, u, v, c):
    """Advance the pressure, and give its change; c is c² Δt/h."""
    new_change[...] = -c * (u[1:-1, 2:] - u[1:-1, 1:-1] + (v[2:, 1:-1] - v[1:-1, 1:-1]))
    new_p[...] = p[1:-1, 1:-1] + new_change


MOMENTUM, CONTINUITY = Kernel(momentum), Kernel(continuity)


class Cavity(Program):
    """The flow in a square box with a moving lid (Ghia, Ghia and Shin 1982)."""

    deep_halos = True

    n: int = param(64, "cells per side, an even number", ge=2)
    re: float = param(100.0, "Reynolds number", gt=0)
    sound: float = param(2.0, "the speed of sound c", gt=0)
    tolerance: float = param(1e-7, "the change of the pressure in a step at which the flow is steady", ge=0)
    steps: int = param(50_000, "time steps at most", ge=0)

    def declare(self, state: State) -> None:
        box = state.grid((self.n, self.n), dims=("y", "x"), boundary="reflect")
        box.field("p")
        box.field("u", at="x", boundary="antireflect", boundary_value={"y": (0.0, 1.0), "x": 0.0})
        box.field("v", at="y", boundary="antireflect")
        box.field("change", halo=0, description="of p in a step")
        state.scalar("residual", 1.0, description="the largest change of p in a step, every 100 steps")

    def step(self, state: State) -> None:
        h = 1 / self.n
        dt = min(0.5 * h / (1 + self.sound), 0.2 * h * h * self.re)
        advance([state.u, state.v], MOMENTUM, h, dt, 1 / self.re, reads=[state.p])
        advance([state.p, state.change], CONTINUITY, self.sound**2 * dt / h, reads=[state.u, state.v])
        if state.step % 100 == 0:
            state.residual = max(exact.max(state.change), -exact.min(state.change))

    def done(self, state: State) -> bool:
        return state.step >= self.steps or state.residual <= self.tolerance

    def observe(self, state: State) -> dict:
        return {"residual": state.residual, "fastest": exact.max(state.u)}

    def result(self, state: State) -> dict:
        """Return the extremes of u and v on the lines through the centre, where the grid has their faces."""
        x, y = state.u.indices[1], state.v.indices[0]
        u = (x == self.n // 2) * state.u.local
        v = (y == self.n // 2) * state.v.local
        world = state.world
        return {"u": exact.min(u, world), "v": [exact.min(v, world), exact.max(v, world)], "steps": state.step}
