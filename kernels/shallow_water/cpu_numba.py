"""The shallow-water step in Numba: one sweep over the rows, with simple loops over stretches of columns.

Each loop writes one array and reads few, so that LLVM can check that they do not overlap and use vectors.
The values of a stretch stay in the L1 cache from loop to loop.
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

STRETCH = 1024
_LEVEL = types.Array(types.float64, 2, "A")
_CURRENT = types.Array(types.float64, 2, "A", readonly=True)
#: One signature for all callers: compiled on import, and not again for a strip of one row or a read-only array.
_SIGNATURE = types.void(*(_LEVEL,) * 3, *(_CURRENT,) * 3, *(_LEVEL,) * 3, *(types.float64,) * 4, types.boolean)


@intrinsic
def _row(typing_context: Any, array: Any, i: Any, j: Any) -> Any:
    """Return array[i, j:] as a contiguous array (length not checked); LLVM needs the known stride for vectors."""
    result = types.Array(array.dtype, 1, "C", readonly=not array.mutable)

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source = make_array(array)(context, builder, arguments[0])
        start = cgutils.get_item_pointer2(
            context, builder, source.data, cgutils.unpack_tuple(builder, source.shape),
            cgutils.unpack_tuple(builder, source.strides), "A", arguments[1:],
        )  # fmt: skip
        item = context.get_constant(types.intp, 8)
        row = make_array(result)(context, builder)
        shape = [builder.extract_value(source.shape, 1)]
        populate_array(row, data=start, shape=shape, strides=[item], itemsize=item, meminfo=None)
        return impl_ret_borrowed(context, builder, result, row._getvalue())

    return result(array, types.intp, types.intp), build


@njit(cache=True, nogil=True, error_model="numpy")
def _fluxes(p, u, v, cu, cv, z, h, i, j, n, fsdx, fsdy):
    p0, p0_e, p1, p1_e = _row(p, i, j), _row(p, i, j + 1), _row(p, i + 1, j), _row(p, i + 1, j + 1)
    u0, u1, u1_e = _row(u, i, j), _row(u, i + 1, j), _row(u, i + 1, j + 1)
    v0, v0_e, v1_e = _row(v, i, j), _row(v, i, j + 1), _row(v, i + 1, j + 1)
    k = i & 1
    cu, cv, z, h = _row(cu, k, j), _row(cv, k, j), _row(z, k, j), _row(h, k, j)
    for c in range(n):
        cu[c] = 0.5 * (p1[c] + p0[c]) * u1[c]
    for c in range(n):
        cv[c] = 0.5 * (p0_e[c] + p0[c]) * v0_e[c]
    for c in range(n):
        curl = fsdx * (v1_e[c] - v0_e[c]) - fsdy * (u1_e[c] - u1[c])
        z[c] = curl / (p0[c] + p1[c] + p1_e[c] + p0_e[c])
    for c in range(n):
        h[c] = p0[c] + 0.25 * (u1[c] * u1[c] + u0[c] * u0[c] + v0_e[c] * v0_e[c] + v0[c] * v0[c])


@njit(cache=True, nogil=True, error_model="numpy")
def _advance(new_p, new_u, new_v, old_p, old_u, old_v, cu, cv, z, h, i, j, n, t8, tx, ty):
    k = i & 1
    cu0, cu0_w, cu1, cu1_w = _row(cu, 1 - k, j + 1), _row(cu, 1 - k, j), _row(cu, k, j + 1), _row(cu, k, j)
    cv0, cv0_w, cv1, cv1_w = _row(cv, 1 - k, j + 1), _row(cv, 1 - k, j), _row(cv, k, j + 1), _row(cv, k, j)
    z0, z0_w, z1_w = _row(z, 1 - k, j + 1), _row(z, 1 - k, j), _row(z, k, j)
    h0, h1, h1_w = _row(h, 1 - k, j + 1), _row(h, k, j + 1), _row(h, k, j)
    op, ou, ov = _row(old_p, i - 1, j), _row(old_u, i - 1, j), _row(old_v, i - 1, j)
    xp, xu, xv = _row(new_p, i - 1, j), _row(new_u, i - 1, j), _row(new_v, i - 1, j)
    for c in range(n):
        xu[c] = ou[c] + t8 * (z0[c] + z0_w[c]) * (cv1[c] + cv0[c] + cv0_w[c] + cv1_w[c]) - tx * (h1[c] - h0[c])
    for c in range(n):
        xv[c] = ov[c] - t8 * (z1_w[c] + z0_w[c]) * (cu1[c] + cu0[c] + cu0_w[c] + cu1_w[c]) - ty * (h1[c] - h1_w[c])
    for c in range(n):
        xp[c] = op[c] - tx * (cu1[c] - cu0[c]) - ty * (cv1[c] - cv1_w[c])


@njit(cache=True, nogil=True, error_model="numpy")
def _filter(new, now, old, i, j, n, alpha, first):
    q, before, after = _row(now, i, j + 1), _row(old, i - 1, j), _row(new, i - 1, j)
    if first:
        for c in range(n):
            before[c] = q[c]
    else:
        for c in range(n):
            before[c] = q[c] + alpha * (after[c] - 2.0 * q[c] + before[c])


@njit(_SIGNATURE, cache=True, nogil=True, error_model="numpy")
def shallow_water(new_p, new_u, new_v, p, u, v, old_p, old_u, old_v, tdt, alpha, dx, dy, first):
    """See the package."""
    m, n = new_p.shape
    t8, tx, ty, fsdx, fsdy = tdt / 8.0, tdt / dx, tdt / dy, 4.0 / dx, 4.0 / dy
    cu, cv, z, h = np.empty((2, n + 1)), np.empty((2, n + 1)), np.empty((2, n + 1)), np.empty((2, n + 1))
    for i in range(m + 1):
        _fluxes(p, u, v, cu, cv, z, h, i, 0, 1, fsdx, fsdy)
        for j in range(0, n, STRETCH):
            k = min(STRETCH, n - j)
            _fluxes(p, u, v, cu, cv, z, h, i, j + 1, k, fsdx, fsdy)
            if i > 0:
                _advance(new_p, new_u, new_v, old_p, old_u, old_v, cu, cv, z, h, i, j, k, t8, tx, ty)
                _filter(new_p, p, old_p, i, j, k, alpha, first)
                _filter(new_u, u, old_u, i, j, k, alpha, first)
                _filter(new_v, v, old_v, i, j, k, alpha, first)
