"""The shallow-water step in C: one sweep over the rows with the widest vectors of this processor."""

from cpython.buffer cimport (
    PyBUF_FORMAT,
    PyBUF_SIMPLE,
    PyBUF_STRIDES,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)

cdef extern from "cpu.h":
    ctypedef struct View:
        double *at
        Py_ssize_t row

    ctypedef struct Step:
        View new_level[3]
        View level[3]
        View old_level[3]
        double t8, tx, ty, fsdx, fsdy, alpha
        int first, lanes

    int shallow_water_sweep(const Step *step, Py_ssize_t m, Py_ssize_t n) nogil


cdef View view(object array, Py_ssize_t rows, Py_ssize_t columns, int access) except *:
    """Return pointer and row stride of an array of this shape; a typed memoryview would take three times as long."""
    cdef Py_buffer buffer
    cdef View found
    PyObject_GetBuffer(array, &buffer, PyBUF_STRIDES | PyBUF_FORMAT | access)
    try:
        if buffer.ndim != 2 or buffer.format[0] != c"d" or buffer.strides[1] != sizeof(double) and columns > 1:
            raise ValueError("an array must be float64, of two axes, the last contiguous")
        if buffer.shape[0] != rows or buffer.shape[1] != columns:
            raise ValueError(f"an array must be of {rows} × {columns}, not {buffer.shape[0]} × {buffer.shape[1]}")
        found.at = <double *>buffer.buf
        found.row = buffer.strides[0] // <Py_ssize_t>sizeof(double)
    finally:
        PyBuffer_Release(&buffer)
    return found


def shallow_water(
    new_p, new_u, new_v, p, u, v, old_p, old_u, old_v,
    double tdt, double alpha, double dx, double dy, bint first, *, int lanes=8,
):
    """See the package; `lanes` is the maximum number of columns per vector (8, 4, 2 or 1, with the same bits)."""
    cdef Step step
    cdef Py_ssize_t m, n
    cdef int failed, q
    m, n = new_p.shape
    for q, (new, now, old) in enumerate(((new_p, p, old_p), (new_u, u, old_u), (new_v, v, old_v))):
        step.new_level[q] = view(new, m, n, PyBUF_WRITABLE)
        step.level[q] = view(now, m + 2, n + 2, PyBUF_SIMPLE)
        step.old_level[q] = view(old, m, n, PyBUF_WRITABLE)
    step.t8, step.tx, step.ty = tdt / 8, tdt / dx, tdt / dy
    step.fsdx, step.fsdy = 4 / dx, 4 / dy
    step.alpha, step.first, step.lanes = alpha, first, lanes
    with nogil:
        failed = shallow_water_sweep(&step, m, n)
    if failed:
        raise MemoryError("no memory for four rows of fluxes")
