"""The shallow-water step in Numba: one sweep over the rows, with the fluxes of two of them at a time."""

import numpy as np
from numba import njit, types

_LEVEL = types.Array(types.float64, 2, "A")
_CURRENT = types.Array(types.float64, 2, "A", readonly=True)
#: One signature for all callers: compiled when imported, and no more for a strip of one row or a read-only array.
_SIGNATURE = types.void(*(_LEVEL,) * 3, *(_CURRENT,) * 3, *(_LEVEL,) * 3, *(types.float64,) * 4, types.boolean)


@njit(cache=True, nogil=True, error_model="numpy")
def _filtered(now, new, old, alpha, first):
    return now if first else now + alpha * (new - 2.0 * now + old)


@njit(_SIGNATURE, cache=True, nogil=True, error_model="numpy")
def shallow_water(new_p, new_u, new_v, p, u, v, old_p, old_u, old_v, tdt, alpha, dx, dy, first):
    """See the package."""
    m, n = new_p.shape
    t8, tx, ty, fsdx, fsdy = tdt / 8.0, tdt / dx, tdt / dy, 4.0 / dx, 4.0 / dy
    cu, cv, z, h = np.empty((2, n + 1)), np.empty((2, n + 1)), np.empty((2, n + 1)), np.empty((2, n + 1))
    for i in range(m + 1):
        k, b = i & 1, 1 - (i & 1)  # this row of the fluxes, and the one before
        for j in range(n + 1):
            cu[k, j] = 0.5 * (p[i + 1, j] + p[i, j]) * u[i + 1, j]
            cv[k, j] = 0.5 * (p[i, j + 1] + p[i, j]) * v[i, j + 1]
            curl = fsdx * (v[i + 1, j + 1] - v[i, j + 1]) - fsdy * (u[i + 1, j + 1] - u[i + 1, j])
            z[k, j] = curl / (p[i, j] + p[i + 1, j] + p[i + 1, j + 1] + p[i, j + 1])
            east, north = u[i + 1, j] * u[i + 1, j] + u[i, j] * u[i, j], v[i, j + 1] * v[i, j + 1]
            h[k, j] = p[i, j] + 0.25 * (east + north + v[i, j] * v[i, j])
        if i == 0:
            continue
        for j in range(n):
            r, c = i - 1, j + 1
            along = cv[k, c] + cv[b, c] + cv[b, j] + cv[k, j]
            across = cu[k, c] + cu[b, c] + cu[b, j] + cu[k, j]
            new_u[r, j] = old_u[r, j] + t8 * (z[b, c] + z[b, j]) * along - tx * (h[k, c] - h[b, c])
            new_v[r, j] = old_v[r, j] - t8 * (z[k, j] + z[b, j]) * across - ty * (h[k, c] - h[k, j])
            new_p[r, j] = old_p[r, j] - tx * (cu[k, c] - cu[b, c]) - ty * (cv[k, c] - cv[k, j])
        for j in range(n):
            r, c = i - 1, j + 1
            old_p[r, j] = _filtered(p[i, c], new_p[r, j], old_p[r, j], alpha, first)
            old_u[r, j] = _filtered(u[i, c], new_u[r, j], old_u[r, j], alpha, first)
            old_v[r, j] = _filtered(v[i, c], new_v[r, j], old_v[r, j], alpha, first)
