"""The weather in JAX: one jitted step in float64 with jnp.roll and donated buffers."""

import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from peer import Peer
from tasks import ALPHA, DT, DX, DY, weather_start


def before(a, axis):
    """Return, for each cell, the neighbour before it."""
    return jnp.roll(a, 1, axis)


def after(a, axis):
    """Return, for each cell, the neighbour after it."""
    return jnp.roll(a, -1, axis)


@partial(jax.jit, static_argnames="first", donate_argnames=("now", "old"))
def step(now, old, first):
    (p, u, v), (pold, uold, vold) = now, old
    tdt = DT if first else DT + DT
    cu = 0.5 * (p + before(p, 0)) * u
    cv = 0.5 * (p + before(p, 1)) * v
    curl = 4.0 / DX * (v - before(v, 0)) - 4.0 / DY * (u - before(u, 1))
    z = curl / (before(before(p, 0), 1) + before(p, 1) + p + before(p, 0))
    h = p + 0.25 * (after(u, 0) ** 2 + u**2 + after(v, 1) ** 2 + v**2)
    around_v = after(cv, 1) + before(after(cv, 1), 0) + before(cv, 0) + cv
    around_u = after(cu, 0) + cu + before(cu, 1) + before(after(cu, 0), 1)
    unew = uold + tdt / 8.0 * (after(z, 1) + z) * around_v - tdt / DX * (h - before(h, 0))
    vnew = vold - tdt / 8.0 * (after(z, 0) + z) * around_u - tdt / DY * (h - before(h, 1))
    pnew = pold - tdt / DX * (after(cu, 0) - cu) - tdt / DY * (after(cv, 1) - cv)
    new = (pnew, unew, vnew)
    return new, now if first else tuple(a + ALPHA * (b - 2.0 * a + c) for a, b, c in zip(now, new, old, strict=True))


class Jax(Peer):
    name = "JAX, jitted"
    packages = ("jax", "jaxlib", "numpy")
    cores = (1, 2)
    # XLA may fuse a product and a sum into one operation; what that changes in the last bit of p is 10⁻¹² of the
    # winds, which are small at the start.
    tolerance = 1e-10

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        if cores == 1:
            os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        jax.config.update("jax_enable_x64", True)
        jax.config.update("jax_platforms", "cpu")
        start = weather_start(size["side"])
        self.now, self.old = (tuple(jnp.array(a) for a in start) for _ in range(2))
        self.first = True

    def run(self):
        for _ in range(self.size["steps"]):
            self.now, self.old = step(self.now, self.old, self.first)
            self.first = False
        jax.block_until_ready((self.now, self.old))

    def answer(self):
        return {name: np.asarray(a) for name, a in zip("puv", self.now, strict=True)}
