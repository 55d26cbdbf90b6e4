"""Heat in a cube of a graded material, in float32: anyrank run examples/heat3d.py -n 4

    C ∂T/∂t = ∇·(K ∇T),    K = K₀ exp(2βz),    C = C₀ exp(2βz)

T is 0 at z = 0 and 100 at z = 1, the other sides are insulated, and T is 0 at the start. The conductivity of a face is
the harmonic mean of those of its cells (Patankar, Numerical Heat Transfer and Fluid Flow, 1980, 4.2). Published:
T = 100 (1 − e^(−2βz)) / (1 − e^(−2β)) in the steady state, and a series before it (Sutradhar, Paulino and Gray, Eng.
Anal. Bound. Elem. 26, 2002; Sutradhar and Paulino, Comput. Methods Appl. Mech. Eng. 193, 2004).
"""

from anyrank import Kernel, Program, State, elementary, exact, param


def conduct(new, T, K, C, r):
    """One forward Euler step; r is Δt/Δx²."""
    centre, heat = (slice(1, -1),) * 3, 0.0
    for axis in range(3):
        for side in (slice(None, -2), slice(2, None)):
            neighbour = centre[:axis] + (side,) + centre[axis + 1 :]
            conductivity = 2 * K[centre] * K[neighbour] / (K[centre] + K[neighbour])
            heat = heat + conductivity * (T[neighbour] - T[centre])
    new[...] = T[centre] + r * heat / C


CONDUCT = Kernel(conduct)


class Heat3D(Program):
    """Heat in a cube of an exponentially graded material (Sutradhar, Paulino and Gray 2002)."""

    deep_halos = True

    n: int = param(24, "cells per side", ge=2)
    beta: float = param(1.5, "β, the gradient of the material", ge=0)
    k: float = param(5.0, "K₀/C₀", gt=0)
    time: float = param(0.02, "the time to reach", gt=0)

    @property
    def steps(self) -> int:
        return int(self.time * self.k * 6.5 * self.n**2) + 1

    def declare(self, state: State) -> None:
        sides = {"z": "antireflect", "y": "neumann", "x": "neumann"}
        cube = state.grid((self.n,) * 3, dims=("z", "y", "x"), boundary=sides, boundary_value={"z": (0.0, 100.0)})
        cube.field("T", "float32", unit="K")
        cube.constant("K", "float32", boundary={"z": "fixed"}, boundary_value={"z": self.conductivity})
        cube.constant("C", "float32", halo=0)

    def conductivity(self, z, y, x, step=0):
        return self.k * elementary.exp(2 * self.beta * (z + 0.5) / self.n) + 0 * (y + x)

    def constants(self, state: State) -> None:
        state.K[...] = self.conductivity(*state.K.indices)
        state.C[...] = state.K.local / self.k

    def step(self, state: State) -> None:
        state.T.advance(CONDUCT, state.C, self.time / self.steps * self.n**2, reads=[state.K])

    def observe(self, state: State) -> dict:
        return {"mean": exact.mean(state.T), "hottest": exact.max(state.T)}

    def result(self, state: State) -> dict:
        return {"mean": exact.mean(state.T), "hottest": exact.max(state.T)}
