"""Exact sums for the CPU, compiled ahead of time; the loops are in cpu.h."""

from libc.stdint cimport int64_t

from anyrank.kernels.exact_sum import SLOTS


cdef extern from "cpu.h" nogil:
    void accumulate_rows(const char *x, const char *y, int64_t x_step, int64_t y_step, int64_t rows,
                         int64_t columns, int64_t *limbs)


def accumulate(x, limbs):
    """Add every element of `x` to `limbs`, or each row to its row of `limbs`."""
    _accumulate(_rows(x), None, _rows(limbs), limbs.ndim == 2)


def accumulate_products(x, y, limbs):
    """Add the products of the elements of `x` and `y` to `limbs`."""
    if x.shape != y.shape:
        raise ValueError(f"products of shapes {x.shape} and {y.shape}")
    _accumulate(_rows(x), _rows(y), _rows(limbs), limbs.ndim == 2)


def _rows(x):
    return x.reshape(1, -1) if x.ndim == 1 else x


cdef _accumulate(const double[:, :] x, const double[:, :] y, int64_t[:, ::1] limbs, bint row_by_row):
    cdef const char *a = NULL
    cdef const char *b = NULL
    cdef int64_t step = 0, rows = 1 if row_by_row else x.shape[0], k
    if limbs.shape[1] < SLOTS:
        raise ValueError(f"{limbs.shape[1]} limbs, not {SLOTS}")
    if row_by_row and limbs.shape[0] != x.shape[0]:
        raise ValueError(f"{limbs.shape[0]} sums of {x.shape[0]} rows")
    if x.shape[0] and x.shape[1]:
        a = <const char *> &x[0, 0]
        if y is not None:
            b = <const char *> &y[0, 0]
            step = y.strides[0]
    with nogil:
        for k in range(limbs.shape[0]):
            accumulate_rows(a, b, x.strides[0], step, rows, x.shape[1], &limbs[k, 0])
            a, b = a + x.strides[0], b + step
