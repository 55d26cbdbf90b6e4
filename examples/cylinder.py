"""The flow around a cylinder in a channel: anyrank run examples/cylinder.py -n 2

A lattice Boltzmann method with nine velocities, regularized (D2Q9; Latt and Chopard, Math. Comput. Simul. 72, 2006),
with walls between the cells by linear interpolation (Bouzidi, Firdaouss and Lallemand, Phys. Fluids 13, 2001), a given
velocity at the inflow and a given density at the outflow (Guo, Zheng and Shi, Chinese Phys. 11, 2002). A large bulk
viscosity damps sound. Units: cells and steps. Published: drag coefficient 5.57 to 5.59 for the Reynolds number 20 (case
2D-1 of Schäfer and Turek, Benchmark Computations of Laminar Flow Around a Cylinder, Notes Numer. Fluid Mech. 52, 1996).
"""

from anyrank import Kernel, Program, State, advance, exact, param

C = ((0, 0), (1, 0), (0, 1), (-1, 0), (0, -1), (1, 1), (-1, 1), (-1, -1), (1, -1))  # velocities along x and y
W = (4 / 9, *(1 / 9,) * 4, *(1 / 36,) * 4)
OPPOSITE = (0, 3, 4, 1, 2, 7, 8, 5, 6)


def moments(f):
    """Return density and velocity of the populations."""
    rho = f[0] + f[1] + f[2] + f[3] + f[4] + f[5] + f[6] + f[7] + f[8]
    return rho, (f[1] - f[3] + (f[5] - f[6]) - (f[7] - f[8])) / rho, (f[2] - f[4] + (f[5] + f[6]) - (f[7] + f[8])) / rho


def equilibrium(rho, u, v):
    """Return the nine populations of a fluid in equilibrium."""
    rest = 1 - 1.5 * (u * u + v * v)
    along = [3 * (x * u + y * v) for x, y in C]
    return [w * rho * (rest + a + 0.5 * a * a) for w, a in zip(W, along, strict=True)]


def stream_and_collide(new_f, new_force, f, force, walls, omega):
    """Move each population by its velocity, back from a wall if there is one, and relax."""
    m, n = force.shape[1:]
    here, arrived, drag, lift = f[:, 1:-1, 1:-1], [f[0, 1:-1, 1:-1]], 0.0, 0.0
    for k, (x, y) in enumerate(C[1:], 1):
        other, (back, far, own) = OPPOSITE[k], walls[3 * k : 3 * k + 3]
        came, beyond = f[k, 1 - y : 1 - y + m, 1 - x : 1 - x + n], f[other, 1 + y : 1 + y + m, 1 + x : 1 + x + n]
        now = came + back * (here[other] - came) + far * (beyond - came) + own * (here[k] - came)
        taken = (back + far + own) * (here[other] + now)  # momentum that the wall takes
        arrived, drag, lift = [*arrived, now], drag - x * taken, lift - y * taken
    new_force[0], new_force[1] = drag, lift
    balance = equilibrium(*moments(arrived))
    d = [now - to for now, to in zip(arrived, balance, strict=True)]
    xx, yy = d[1] + d[3] + d[5] + d[6] + d[7] + d[8], d[2] + d[4] + d[5] + d[6] + d[7] + d[8]
    xy = d[5] - d[6] + d[7] - d[8]  # the stress
    for k, (x, y) in enumerate(C):
        shear = (x * x - y * y) / 2 * (xx - yy) + 2 * x * y * xy
        bulk = (x * x + y * y - 2 / 3) / 2 * (xx + yy)
        new_f[k] = balance[k] + 4.5 * W[k] * ((1 - omega) * shear + 0.9 * bulk)


STEP = Kernel(stream_and_collide)


class Cylinder(Program):
    """Flow past a cylinder in a channel by a lattice Boltzmann method (Schäfer and Turek 1996)."""

    deep_halos = True

    diameter: int = param(10, "cells, the diameter of the cylinder", ge=3)
    length: float = param(12.0, "diameters, the channel", ge=4)
    re: float = param(20.0, "Reynolds number, of the diameter and the mean velocity", gt=0)
    speed: float = param(0.05, "the mean velocity of the inflow", gt=0, lt=0.2)
    time: float = param(25.0, "diameters over mean velocity, the time to compute", ge=0)
    ramp: float = param(12.0, "the time in which the inflow grows", gt=0)

    @property
    def steps(self) -> int:
        return round(self.time * self.diameter / self.speed)

    @property
    def cells(self) -> tuple[int, int]:
        return round(4.1 * self.diameter), round(self.length * self.diameter)

    def velocity(self, y, step):
        """Return the parabola of the inflow, which grows smoothly in the time of the ramp."""
        part = min(1.0, step * self.speed / (self.ramp * self.diameter))
        mean = self.speed * part * part * (3 - 2 * part)
        return 6 * mean * (y + 0.5) * (self.cells[0] - y - 0.5) / self.cells[0] ** 2

    def declare(self, state: State) -> None:
        def outside(inside, equivalent):
            """Return the populations of the nearest cell, with another density or velocity."""
            parts = zip(inside, equilibrium(*equivalent), equilibrium(*moments(inside)), strict=True)
            return state.xp.stack([f + (new - old) for f, new, old in parts])

        def inflow(inside, y, x, step):
            rho = moments(inside[0])[0]
            return outside(inside[0], (rho, self.velocity(y, step), 0.0))

        def outflow(inside, y, x, step):
            return outside(inside[0], (1.0, *moments(inside[0])[1:]))

        channel = state.grid(self.cells, dims=("y", "x"), boundary="reflect")
        channel.field("f", components=9, boundary={"x": (inflow, outflow)}, description="populations")
        channel.field("force", components=2, halo=0, description="on the walls in a cell: drag and lift")
        channel.constant("walls", components=27, halo=0, description="shares of what comes back from walls")

    def constants(self, state: State) -> None:
        _, y, x = state.walls.indices
        py, px, largest = y + 0.5 - 2 * self.diameter, x + 0.5 - 2 * self.diameter, state.xp.maximum
        outside = py * py + px * px - self.diameter**2 / 4
        for k, (cx, cy) in enumerate(C[1:], 1):
            b, size = px * cx + py * cy, cx * cx + cy * cy
            root = b * b - size * outside
            q = (b - state.xp.sqrt(largest(root, 0.0))) / size  # the distance to the cylinder, in cells along −c
            q = q * ((root > 0) & (outside > 0) & (q > 0) & (q <= 1))
            q = q + 0.5 * ((y - cy < 0) | (y - cy >= self.cells[0]))  # the walls of the channel
            near, distant, solid = (q > 0) & (q < 0.5), q >= 0.5, outside <= 0
            state.walls[3 * k] = near * 2 * q + distant / largest(2 * q, 1.0)
            state.walls[3 * k + 1] = near * (1 - 2 * q)
            state.walls[3 * k + 2] = distant * (1 - 1 / largest(2 * q, 1.0)) + solid

    def setup(self, state: State) -> None:
        for k, weight in enumerate(W):
            state.f[k] = weight

    def step(self, state: State) -> None:
        omega = 1 / (0.5 + 3 * self.speed * self.diameter / self.re)
        advance([state.f, state.force], STEP, state.walls, omega)

    def result(self, state: State) -> dict:
        """Return the coefficients of drag and lift: the force on the cylinder, without that on the channel."""
        _, y, x = state.force.indices
        near = (abs(x + 0.5 - 2 * self.diameter) < self.diameter) & (abs(y + 0.5 - 2 * self.diameter) < self.diameter)
        drag, lift = (exact.sum(near * state.force.local[k], state.world) for k in (0, 1))
        return {name: 2 * f / (self.speed**2 * self.diameter) for name, f in (("drag", drag), ("lift", lift))}

    def work(self) -> tuple[float, str]:
        return self.cells[0] * self.cells[1], "cells"
