"""The vortex street behind a cylinder in a channel: anyrank run examples/cylinder.py -n 2

A lattice Boltzmann method with nine velocities (D2Q9), incompressible (He and Luo, J. Stat. Phys. 88, 1997) and
regularized (Latt and Chopard, Math. Comput. Simul. 72, 2006): the populations are functions of the density, velocity
and stress, which are stored. Cylinder: bounce-back with interpolation (Yu, Mei and Shyy, AIAA 2003-0953). A large bulk
viscosity damps sound. Units: cells and steps; the density is the difference from its mean, 1.

Published by Schäfer and Turek (Notes Numer. Fluid Mech. 52, 1996), and computed here with 20 cells per diameter, for
the Reynolds number 100 (case 2D-2): Strouhal number 0.295 to 0.305 (0.299), largest drag coefficient 3.22 to 3.24
(3.27), largest lift coefficient 0.99 to 1.01 (0.96). For 20 (case 2D-1), where the flow is steady, with 10 cells: drag
coefficient 5.57 to 5.59 (5.66).
"""

import numba
import numpy as np

from anyrank import Kernel, Program, State, exact, param

C = ((0, 0), (1, 0), (0, 1), (-1, 0), (0, -1), (1, 1), (-1, 1), (-1, -1), (1, -1))  # velocities along x and y
W = (4 / 9, *(1 / 9,) * 4, *(1 / 36,) * 4)


def population(w, cx, cy, rho, u, v, xx, yy, xy):
    """Return the population of weight w and velocity (cx, cy) for a density, velocity and stress."""
    stress = (cx * cx - 1 / 3) * xx + (cy * cy - 1 / 3) * yy + 2 * cx * cy * xy
    return w * (rho + 3 * (cx * u + cy * v) + 4.5 * stress)


def bounce(q, towards, towards_behind, away):
    """Return the population that a wall at the distance q sends back, from the populations of the step before.

    They move towards the wall, in the cell and in the cell behind it, and away from the wall in the cell.
    """
    return ((1 - q) * towards_behind + q * (towards + away)) / (1 + q)


def collide(f, omega):
    """Return the density, velocity and stress of nine populations after their collision."""
    rho = f[0] + f[1] + f[2] + f[3] + f[4] + f[5] + f[6] + f[7] + f[8]
    u, v = f[1] - f[3] + (f[5] - f[6]) - (f[7] - f[8]), f[2] - f[4] + (f[5] + f[6]) - (f[7] + f[8])
    diagonal = f[5] + f[6] + f[7] + f[8]
    xx, yy = f[1] + f[3] + diagonal - rho / 3 - u * u, f[2] + f[4] + diagonal - rho / 3 - v * v
    xy = f[5] - f[6] + f[7] - f[8] - u * v  # xx, yy and xy: the stress out of equilibrium
    bulk, shear = 0.45 * (xx + yy), (1 - omega) * (xx - yy) / 2
    return rho, u, v, u * u + (bulk + shear), v * v + (bulk - shear), u * v + (1 - omega) * xy


def lattice_boltzmann(new, old, force, wall, omega):
    """Move the populations by their velocities, back from a wall if there is one, and let them collide."""
    m, n = new.shape[1:]
    at = {(cx, cy): old[:, 1 + cy : 1 + cy + m, 1 + cx : 1 + cx + n] for cx, cy in C}  # the cells at (x, y) + c
    f, force[...] = [], 0.0
    for w, (cx, cy), q in zip(W, C, wall, strict=True):
        streamed, towards = population(w, cx, cy, *at[-cx, -cy]), population(w, -cx, -cy, *at[0, 0])
        bounced = bounce(q, towards, population(w, -cx, -cy, *at[cx, cy]), population(w, cx, cy, *at[0, 0]))
        f.append(streamed + (q > 0) * (bounced - streamed))
        force[0] -= (q > 0) * cx * (towards + f[-1])  # the momentum that the wall takes
        force[1] -= (q > 0) * cy * (towards + f[-1])
    for moment, value in zip(new, collide(f, omega), strict=True):
        moment[...] = value


compiled_population, compiled_bounce, compiled_collide = map(numba.njit(cache=True), (population, bounce, collide))


@numba.njit(inline="always")
def population_at(w, cx, cy, flow, i, j):
    """Return a population at the cell (i, j)."""
    moments = flow[0, i, j], flow[1, i, j], flow[2, i, j], flow[3, i, j], flow[4, i, j], flow[5, i, j]
    return compiled_population(w, cx, cy, *moments)


@numba.njit(cache=True)
def lattice_boltzmann_numba(new, old, force, wall, omega):
    """Do the same row by row, with the same operations in the same order."""
    m, n = new.shape[1:]
    f = np.empty((9, n))
    for i in range(m):
        force[:, i] = 0.0
        for k in range(9):
            w, (cx, cy) = W[k], C[k]
            for j in range(n):
                f[k, j] = population_at(w, cx, cy, old, i + 1 - cy, j + 1 - cx)
            for j in range(n):
                q = wall[k, i, j]
                if q > 0:
                    towards = population_at(w, -cx, -cy, old, i + 1, j + 1)
                    behind = population_at(w, -cx, -cy, old, i + 1 + cy, j + 1 + cx)
                    bounced = compiled_bounce(q, towards, behind, population_at(w, cx, cy, old, i + 1, j + 1))
                    f[k, j] += bounced - f[k, j]
                    force[0, i, j] -= cx * (towards + f[k, j])
                    force[1, i, j] -= cy * (towards + f[k, j])
        for j in range(n):
            row = f[0, j], f[1, j], f[2, j], f[3, j], f[4, j], f[5, j], f[6, j], f[7, j], f[8, j]
            rho, u, v, xx, yy, xy = compiled_collide(row, omega)
            new[0, i, j], new[1, i, j], new[2, i, j] = rho, u, v
            new[3, i, j], new[4, i, j], new[5, i, j] = xx, yy, xy


SAMPLE = 10  # steps between two samples of the force
STEP = Kernel(lattice_boltzmann, numba=lattice_boltzmann_numba)


class Cylinder(Program):
    """Flow past a cylinder in a channel by a lattice Boltzmann method (Schäfer and Turek 1996)."""

    deep_halos = True

    diameter: int = param(20, "cells, the diameter of the cylinder", ge=3)
    length: float = param(22.0, "diameters, the channel", ge=4)
    re: float = param(100.0, "Reynolds number, of the diameter and the mean velocity", gt=0)
    speed: float = param(0.05, "the mean velocity of the inflow", gt=0, lt=0.2)
    time: float = param(50.0, "diameters over mean velocity, the time to compute", ge=0)

    @property
    def steps(self) -> int:
        return round(self.time * self.diameter / self.speed)

    @property
    def cells(self) -> tuple[int, int]:
        return round(4.1 * self.diameter), round(self.length * self.diameter)

    def profile(self, y):
        """Return the velocity of the inflow, a parabola."""
        return 6 * self.speed * (y + 0.5) * (self.cells[0] - y - 0.5) / self.cells[0] ** 2

    def declare(self, state: State) -> None:
        def no_slip(inside, y, x, step):
            ghost = inside[0].copy()
            ghost[1:3] = -ghost[1:3]  # the velocity is 0 half a cell away, on the wall
            return ghost

        def inflow(inside, y, x, step):
            ghost = no_slip(inside, y, x, step)
            ghost[1] += 2 * self.profile(y)
            return ghost

        def outflow(inside, y, x, step):
            ghost = inside[0].copy()
            ghost[0] = 0.0
            return ghost

        channel = state.grid(self.cells, dims=("y", "x"), boundary={"y": no_slip, "x": (inflow, outflow)})
        channel.field("flow", components=6, description="density, velocity u, v and stress xx, yy, xy")
        channel.field("force", components=2, halo=0, description="on the cylinder in a cell: drag and lift")
        channel.constant("wall", components=9, halo=0, description="distance to the wall against each velocity, or 0")
        for name in ("drag", "lift"):
            state.scalar(name, 0.0, description="coefficient")
            state.scalar(f"peak_{name}", 0.0, description="the largest in this period")
            state.scalar(f"max_{name}", 0.0, description="the largest in the period before")
        state.scalar("begin", 0.0, unit="steps", description="of this period")
        state.scalar("period", 0.0, unit="steps", description="the length of the period before")

    def constants(self, state: State) -> None:
        _, y, x = state.wall.indices
        y, x, xp = y + 0.5 - 2 * self.diameter, x + 0.5 - 2 * self.diameter, state.xp  # from the centre
        outside = y * y + x * x - self.diameter**2 / 4
        for k, (cx, cy) in enumerate(C[1:], 1):
            b, size = x * cx + y * cy, cx * cx + cy * cy
            root = b * b - size * outside
            q = (b - xp.sqrt(xp.maximum(root, 0.0))) / size  # the solution of |(x, y) − q c| = diameter / 2
            state.wall[k] = q * ((root > 0) & (outside > 0) & (q > 0) & (q <= 1))

    def setup(self, state: State) -> None:
        y = state.flow.indices[1]
        state.flow[1], state.flow[3] = self.profile(y), self.profile(y) ** 2

    def step(self, state: State) -> None:
        omega = 1 / (0.5 + 3 * self.speed * self.diameter / self.re)
        state.flow.advance(STEP, state.force, state.wall, omega)
        if state.step % SAMPLE == 0:
            self.sample(state)

    def sample(self, state: State) -> None:
        """Update the coefficients and the period of the lift: it ends where the lift becomes positive."""
        before, coefficient = state.lift, 2 / (self.speed**2 * self.diameter)
        state.drag, state.lift = (coefficient * exact.sum(state.force, axis=(1, 2))).tolist()
        if before < 0 <= state.lift:
            end = state.step - SAMPLE * state.lift / (state.lift - before)  # by linear interpolation
            state.begin, state.period = end, end - state.begin
            state.max_drag, state.max_lift = state.peak_drag, state.peak_lift
            state.peak_drag = state.peak_lift = 0.0
        state.peak_drag = max(state.peak_drag, state.drag)
        state.peak_lift = max(state.peak_lift, state.lift)

    def observe(self, state: State) -> dict:
        """Return the newest drag and lift coefficients."""
        return {"drag": state.drag, "lift": state.lift}

    def result(self, state: State) -> dict:
        """Return the Strouhal number, the largest drag and lift coefficients of the last period, and the last ones."""
        strouhal = self.diameter / (self.speed * state.period) if state.period else 0.0
        names = ("max_drag", "max_lift", "drag", "lift")
        return {"strouhal": strouhal, **{name: getattr(state, name) for name in names}}

    def work(self) -> tuple[float, str]:
        return self.cells[0] * self.cells[1], "cells"
