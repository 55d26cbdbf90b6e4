"""The shallow-water step in plain NumPy, over whole arrays: the definition."""

import numpy as np

# Slices of an axis of a halo array: the interior, and the interior shifted by +1 and by -1.
_HERE, _NEXT, _BEFORE = slice(1, -1), slice(2, None), slice(None, -2)


def shallow_water(
    new_p: np.ndarray,
    new_u: np.ndarray,
    new_v: np.ndarray,
    p: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    old_p: np.ndarray,
    old_u: np.ndarray,
    old_v: np.ndarray,
    tdt: float,
    alpha: float,
    dx: float,
    dy: float,
    first: bool,
) -> None:
    """See the package."""
    cu, cv, z, h = _fluxes(p, u, v, dx, dy)
    t8, tx, ty = tdt / 8.0, tdt / dx, tdt / dy
    i, j, before, after = _HERE, _HERE, _BEFORE, _NEXT
    turn_u = t8 * (z[i, after] + z[i, j]) * (cv[i, after] + cv[before, after] + cv[before, j] + cv[i, j])
    turn_v = t8 * (z[after, j] + z[i, j]) * (cu[after, j] + cu[i, j] + cu[i, before] + cu[after, before])
    new_u[...] = old_u + turn_u - tx * (h[i, j] - h[before, j])
    new_v[...] = old_v - turn_v - ty * (h[i, j] - h[i, before])
    new_p[...] = old_p - tx * (cu[after, j] - cu[i, j]) - ty * (cv[i, after] - cv[i, j])
    for new, field, old in (new_p, p, old_p), (new_u, u, old_u), (new_v, v, old_v):
        now = field[i, j]
        old[...] = now if first else now + alpha * (new - 2.0 * now + old)


def _fluxes(p: np.ndarray, u: np.ndarray, v: np.ndarray, dx: float, dy: float) -> tuple[np.ndarray, ...]:
    """Return cu, cv, z and h as halo arrays, NaN where a formula needs a value beyond the halo."""
    cu, cv, z, h = (np.full(p.shape, np.nan) for _ in range(4))
    fsdx, fsdy = 4.0 / dx, 4.0 / dy
    cu[1:] = 0.5 * (p[1:] + p[:-1]) * u[1:]
    cv[:, 1:] = 0.5 * (p[:, 1:] + p[:, :-1]) * v[:, 1:]
    curl = fsdx * (v[1:, 1:] - v[:-1, 1:]) - fsdy * (u[1:, 1:] - u[1:, :-1])
    z[1:, 1:] = curl / (p[:-1, :-1] + p[1:, :-1] + p[1:, 1:] + p[:-1, 1:])
    u2, v2 = u * u, v * v
    h[:-1, :-1] = p[:-1, :-1] + 0.25 * (u2[1:, :-1] + u2[:-1, :-1] + v2[:-1, 1:] + v2[:-1, :-1])
    return cu, cv, z, h
