"""Philox4x32-10 for the CPU, compiled ahead of time; the loop is in cpu.h."""

from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "cpu.h" nogil:
    void philox_words(uint64_t seed, uint64_t stream, uint64_t step, const uint64_t *index, uint32_t *out, int64_t n)


def words(uint64_t seed, uint32_t stream, uint32_t step, const uint64_t[::1] index, uint32_t[:, ::1] out):
    """Write the four words of each index into a row of `out`."""
    if index.shape[0]:
        with nogil:
            philox_words(seed, stream, step, &index[0], &out[0, 0], index.shape[0])
