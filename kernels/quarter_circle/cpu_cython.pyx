"""Points in the quarter circle for the CPU, compiled ahead of time; the vector loops are in cpu.h.

`INSTRUCTIONS` lists the instruction sets of this processor, best last; `quarter_circle` uses the last one.
"""

from libc.stdint cimport uint32_t, uint64_t


cdef extern from "cpu.h" nogil:
    int best_instructions()
    uint64_t count_hits(int instructions, uint64_t seed, uint32_t stream, uint64_t first, uint64_t end)


INSTRUCTIONS = ("plain", "sse2", "avx2", "avx512")[: best_instructions() + 1]
BEST = INSTRUCTIONS[best_instructions()]


def quarter_circle(seed, stream, first, count):
    """Return the number of hits among the points first … first + count − 1."""
    return count_with(BEST, seed, stream, first, count)


def count_with(instructions, uint64_t seed, uint32_t stream, uint64_t first, uint64_t count):
    """Return the number of hits, computed with one of INSTRUCTIONS."""
    cdef int which = INSTRUCTIONS.index(instructions)
    with nogil:
        count = count_hits(which, seed, stream, first, first + count)
    return count
