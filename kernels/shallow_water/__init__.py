"""One step of the shallow-water equations on a staggered grid that conserves potential enstrophy.

`shallow_water(new_p, new_u, new_v, p, u, v, old_p, old_u, old_v, tdt, alpha, dx, dy, first)` takes two-dimensional
float64 arrays, row i and column j, with a contiguous last axis and any row stride:

`p`, `u`, `v`
    The current time level of m × n cells with a halo of 1, shape (m + 2, n + 2): pressure (m²/s²), and velocity
    (m/s) along i and along j, staggered by half a cell before p in their direction.
`new_p`, `new_u`, `new_v`
    (m, n), written: the next level.
`old_p`, `old_u`, `old_v`
    (m, n), read, then replaced: the previous level, filtered in time.

`tdt` is Δt on the first step, a forward step from old levels equal to the current ones, and 2Δt on later steps
(leapfrog). `alpha` is the weight of the time filter; `dx` and `dy` are the cell size in m. Arrays must not overlap.
A block of cells may be divided into any regions, each with its ghost cells; the bits are the same.

Operations are from left to right as written, with t8 = tdt/8, tx = tdt/dx, ty = tdt/dy, fsdx = 4/dx, fsdy = 4/dy:

    cu[i,j] = (.5·(p[i,j] + p[i−1,j]))·u[i,j]
    cv[i,j] = (.5·(p[i,j] + p[i,j−1]))·v[i,j]
    z[i,j] = (fsdx·(v[i,j] − v[i−1,j]) − fsdy·(u[i,j] − u[i,j−1]))
             / (p[i−1,j−1] + p[i,j−1] + p[i,j] + p[i−1,j])
    h[i,j] = p[i,j] + .25·(u[i+1,j]² + u[i,j]² + v[i,j+1]² + v[i,j]²)

    new_u[i,j] = old_u[i,j] + (t8·(z[i,j+1] + z[i,j]))·(cv[i,j+1] + cv[i−1,j+1] + cv[i−1,j] + cv[i,j])
                 − tx·(h[i,j] − h[i−1,j])
    new_v[i,j] = old_v[i,j] − (t8·(z[i+1,j] + z[i,j]))·(cu[i+1,j] + cu[i,j] + cu[i,j−1] + cu[i+1,j−1])
                 − ty·(h[i,j] − h[i,j−1])
    new_p[i,j] = old_p[i,j] − tx·(cu[i+1,j] − cu[i,j]) − ty·(cv[i,j+1] − cv[i,j])

    old := current on the first step, else current + alpha·((new − 2·current) + old), for p, u and v.

Source: R. Sadourny, The dynamics of finite-difference models of the shallow-water equations, J. Atmos. Sci. 32
(1975) 680–689. The order of operations is that of P. Swarztrauber's benchmark (NCAR, 1984), maintained as NCAR/SWM.
Time filter: R. Asselin, Mon. Weather Rev. 100 (1972) 487–490.
"""

from typing import Any

import numpy as np

OPERATIONS = ("shallow_water",)


def example(operation: str, size: int) -> tuple[tuple[Any, ...], int, str]:
    """Return arguments for about `size` cells in the interior of wider arrays, like fields with a halo."""
    m = max(1, int(size**0.5))
    n = -(-size // m)
    random = np.random.default_rng(size)
    p, old_p = 50000.0 + random.standard_normal((2, m + 2, n + 2))
    u, v, old_u, old_v = 10.0 * random.standard_normal((4, m + 2, n + 2))
    new = np.zeros((3, m + 2, n + 2))
    inside = [array[1:-1, 1:-1] for array in (*new, old_p, old_u, old_v)]
    return (*inside[:3], p, u, v, *inside[3:], 180.0, 0.001, 1e5, 1e5, False), m * n, "cell-steps"
