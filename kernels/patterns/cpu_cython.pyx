"""Count patterns in text on the CPU, compiled ahead of time; the loops are in cpu.h."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t


cdef extern from "cpu.h" nogil:
    ctypedef struct Search:
        const uint8_t *text
        const uint8_t *classes
        const uint32_t *table
        const int32_t *owner
        const int32_t *link
        const int32_t *length
        const uint8_t *letters
        const uint8_t *near
        int64_t *end
        int64_t *counts
        int shift

    uint32_t count_patterns(const Search *search, uint32_t state, int64_t i, int64_t stop)
    int64_t count_line_ends(const uint8_t *text, int64_t n)
    int64_t count_broken(const uint8_t *text, int64_t start, int64_t stop)


def count(const uint8_t[::1] text, int64_t start, int64_t stop, const uint8_t[::1] classes, const uint32_t[:, ::1] table,
          const int32_t[::1] owner, const int32_t[::1] link, const int32_t[::1] length, const uint8_t[::1] letters,
          const uint8_t[:, ::1] near, int64_t[::1] state, int64_t[::1] counts):
    """Add the occurrences of each pattern to `counts`; return the number of line ends."""
    cdef Search search
    cdef int64_t k, lines
    columns: int = table.shape[1]
    _check(text, start, stop)
    search.text, search.classes, search.table = &text[0], &classes[0], &table[0, 0]
    search.owner, search.link, search.length, search.near = &owner[0], &link[0], &length[0], &near[0, 0]
    search.letters = &letters[0] if letters.shape[0] else NULL
    search.end, search.counts, search.shift = &state[1], &counts[0], columns.bit_length() - 1
    with nogil:
        for k in range(1, state.shape[0]):
            state[k] += start
        state[0] = count_patterns(&search, <uint32_t> (state[0] << search.shift), start, stop) >> search.shift
        for k in range(1, state.shape[0]):
            state[k] -= stop
        lines = count_line_ends(search.text + start, stop - start)
    return lines


def broken(const uint8_t[::1] text, int64_t start, int64_t stop):
    """Return the number of sequences that begin in text[start:stop] and are not valid UTF-8."""
    _check(text, start, stop)
    with nogil:
        start = count_broken(&text[0], start, stop)
    return start


cdef _check(const uint8_t[::1] text, int64_t start, int64_t stop):
    if not 4 <= start <= stop <= text.shape[0] - 4:
        raise ValueError(f"bytes {start} to {stop} of {text.shape[0]} lack the 4 around them")
