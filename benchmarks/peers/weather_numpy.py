"""The weather in NumPy: an expression on whole arrays for each formula, with neighbours as slices."""

import numpy as np

from peer import Peer
from tasks import ALPHA, DT, DX, DY, weather_start

#: Slices of arrays with a halo: the cells, the cells before them, and the cells after them.
C, B, A = slice(1, -1), slice(None, -2), slice(2, None)


def wrap(a):
    """Copy the values of the opposite side into the halo of an array."""
    a[0], a[-1] = a[-2], a[1]
    a[:, 0], a[:, -1] = a[:, -2], a[:, 1]


class NumPy(Peer):
    name = "NumPy"
    goals = {1: 8.0}

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        self.now = [np.pad(a, 1, mode="wrap") for a in weather_start(size["side"])]
        self.old = [a[C, C].copy() for a in self.now]
        self.fluxes = [np.empty_like(self.now[0]) for _ in range(4)]
        self.tdt = DT

    def run(self):
        for _ in range(self.size["steps"]):
            self.step()

    def step(self):
        p, u, v = self.now
        cu, cv, z, h = self.fluxes
        cu[C, C] = 0.5 * (p[C, C] + p[B, C]) * u[C, C]
        cv[C, C] = 0.5 * (p[C, C] + p[C, B]) * v[C, C]
        curl = 4.0 / DX * (v[C, C] - v[B, C]) - 4.0 / DY * (u[C, C] - u[C, B])
        z[C, C] = curl / (p[B, B] + p[C, B] + p[C, C] + p[B, C])
        h[C, C] = p[C, C] + 0.25 * (u[A, C] ** 2 + u[C, C] ** 2 + v[C, A] ** 2 + v[C, C] ** 2)
        for flux in self.fluxes:
            wrap(flux)
        t8, tx, ty = self.tdt / 8.0, self.tdt / DX, self.tdt / DY
        pold, uold, vold = self.old
        unew = uold + t8 * (z[C, A] + z[C, C]) * (cv[C, A] + cv[B, A] + cv[B, C] + cv[C, C]) - tx * (h[C, C] - h[B, C])
        vnew = vold - t8 * (z[A, C] + z[C, C]) * (cu[A, C] + cu[C, C] + cu[C, B] + cu[A, B]) - ty * (h[C, C] - h[C, B])
        pnew = pold - tx * (cu[A, C] - cu[C, C]) - ty * (cv[C, A] - cv[C, C])
        first, self.tdt = self.tdt == DT, DT + DT
        for now, old, new in zip(self.now, self.old, (pnew, unew, vnew), strict=True):
            old[...] = now[C, C] if first else now[C, C] + ALPHA * (new - 2.0 * now[C, C] + old)
            now[C, C] = new
            wrap(now)

    def answer(self):
        return {name: a[C, C] for name, a in zip("puv", self.now, strict=True)}
