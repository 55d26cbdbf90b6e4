"""The digest for the CPU, compiled ahead of time; the loop over a row is in cpu.h."""

from libc.stdint cimport int64_t, uint64_t


cdef extern from "cpu.h" nogil:
    uint64_t digest_row(const uint64_t *bits, uint64_t first, int64_t columns)


def digest(bits, first, row_step):
    """Return the digest: the sum of the mixed elements mod 2^64."""
    return _digest(bits, first % (1 << 64), row_step % (1 << 64))


cdef uint64_t _digest(const uint64_t[:, :] bits, uint64_t first, uint64_t row_step):
    cdef uint64_t total = 0
    cdef Py_ssize_t r
    if bits.shape[1] == 0:
        return 0
    with nogil:
        for r in range(bits.shape[0]):
            total += digest_row(&bits[r, 0], first, bits.shape[1])
            first += row_step
    return total
