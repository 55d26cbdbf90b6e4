"""The weather in plain Numba: loops over the cells for each array, compiled without fastmath."""

import numba
import numpy as np
from numba import prange

from peer import Peer
from tasks import ALPHA, DT, DX, DY, weather_start


def wrap(a):
    """Copy the values of the opposite side into the halo of an array."""
    a[0], a[-1] = a[-2], a[1]
    a[:, 0], a[:, -1] = a[:, -2], a[:, 1]


def mass_flux_u(cu, p, u):
    for i in prange(1, p.shape[0] - 1):
        for j in range(1, p.shape[1] - 1):
            cu[i, j] = 0.5 * (p[i, j] + p[i - 1, j]) * u[i, j]


def mass_flux_v(cv, p, v):
    for i in prange(1, p.shape[0] - 1):
        for j in range(1, p.shape[1] - 1):
            cv[i, j] = 0.5 * (p[i, j] + p[i, j - 1]) * v[i, j]


def vorticity(z, p, u, v, fsdx, fsdy):
    for i in prange(1, p.shape[0] - 1):
        for j in range(1, p.shape[1] - 1):
            curl = fsdx * (v[i, j] - v[i - 1, j]) - fsdy * (u[i, j] - u[i, j - 1])
            z[i, j] = curl / (p[i - 1, j - 1] + p[i, j - 1] + p[i, j] + p[i - 1, j])


def height(h, p, u, v):
    for i in prange(1, p.shape[0] - 1):
        for j in range(1, p.shape[1] - 1):
            h[i, j] = p[i, j] + 0.25 * (u[i + 1, j] ** 2 + u[i, j] ** 2 + v[i, j + 1] ** 2 + v[i, j] ** 2)


def new_u(unew, uold, z, cv, h, t8, tx):
    for i in prange(1, h.shape[0] - 1):
        for j in range(1, h.shape[1] - 1):
            turn = t8 * (z[i, j + 1] + z[i, j]) * (cv[i, j + 1] + cv[i - 1, j + 1] + cv[i - 1, j] + cv[i, j])
            unew[i, j] = uold[i, j] + turn - tx * (h[i, j] - h[i - 1, j])


def new_v(vnew, vold, z, cu, h, t8, ty):
    for i in prange(1, h.shape[0] - 1):
        for j in range(1, h.shape[1] - 1):
            turn = t8 * (z[i + 1, j] + z[i, j]) * (cu[i + 1, j] + cu[i, j] + cu[i, j - 1] + cu[i + 1, j - 1])
            vnew[i, j] = vold[i, j] - turn - ty * (h[i, j] - h[i, j - 1])


def new_p(pnew, pold, cu, cv, tx, ty):
    for i in prange(1, cu.shape[0] - 1):
        for j in range(1, cu.shape[1] - 1):
            pnew[i, j] = pold[i, j] - tx * (cu[i + 1, j] - cu[i, j]) - ty * (cv[i, j + 1] - cv[i, j])


def smooth(new, now, old, alpha):
    for i in prange(1, new.shape[0] - 1):
        for j in range(1, new.shape[1] - 1):
            old[i, j] = now[i, j] + alpha * (new[i, j] - 2.0 * now[i, j] + old[i, j])


class Numba(Peer):
    name = "Numba, a pass per array"
    packages = ("numba", "numpy")
    cores = (1, 2)
    goals = {1: 2.5}

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        compiled = numba.njit(parallel=cores > 1)
        passes = (mass_flux_u, mass_flux_v, vorticity, height, new_u, new_v, new_p, smooth)
        self.passes = [compiled(function) for function in passes]
        self.now = [np.pad(a, 1, mode="wrap") for a in weather_start(size["side"])]
        self.old = [a.copy() for a in self.now]
        self.new = [np.empty_like(a) for a in self.now]
        self.fluxes = [np.empty_like(self.now[0]) for _ in range(4)]
        self.tdt = DT

    def run(self):
        for _ in range(self.size["steps"]):
            self.step()

    def step(self):
        flux_u, flux_v, curl, energy, advance_u, advance_v, advance_p, filtered = self.passes
        (p, u, v), (pold, uold, vold), (pnew, unew, vnew) = self.now, self.old, self.new
        cu, cv, z, h = self.fluxes
        flux_u(cu, p, u)
        flux_v(cv, p, v)
        curl(z, p, u, v, 4.0 / DX, 4.0 / DY)
        energy(h, p, u, v)
        for flux in self.fluxes:
            wrap(flux)
        t8, tx, ty = self.tdt / 8.0, self.tdt / DX, self.tdt / DY
        advance_u(unew, uold, z, cv, h, t8, tx)
        advance_v(vnew, vold, z, cu, h, t8, ty)
        advance_p(pnew, pold, cu, cv, tx, ty)
        first, self.tdt = self.tdt == DT, DT + DT
        for new, now, old in zip(self.new, self.now, self.old, strict=True):
            if not first:  # in the first step the old level is the current level
                filtered(new, now, old, ALPHA)
            wrap(new)
        self.now, self.new = self.new, self.now

    def answer(self):
        return {name: a[1:-1, 1:-1] for name, a in zip("puv", self.now, strict=True)}
