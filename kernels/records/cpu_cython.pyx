"""Find the records of CSV text on the CPU, compiled ahead of time; the loops are in cpu.h."""

from libc.stdint cimport int64_t, uint8_t


cdef extern from "cpu.h" nogil:
    enum: STATES
    enum: CLASSES
    void scan_records(const uint8_t *text, int64_t n, const uint8_t *classes, int64_t after, int64_t *found)
    int64_t list_records(const uint8_t *text, int64_t n, const uint8_t *classes, int64_t *starts, int64_t *fields,
                         uint8_t *unclear)
    void map_states(const uint8_t *text, int64_t n, const uint8_t *classes, int64_t *ends)


def scan(const uint8_t[::1] text, const uint8_t[::1] classes, int64_t state, int64_t after, int64_t[::1] found):
    """Find the first record after an index and the last one, and count quotes and line ends in fields."""
    _check(classes, found.shape[0], 5)
    if not 0 <= state < STATES:
        raise ValueError(f"state {state} is not one of {STATES} states")
    cdef uint8_t nothing = 0
    cdef const uint8_t *first = &text[0] if text.shape[0] else &nothing
    found[0] = state
    with nogil:
        scan_records(first, text.shape[0], &classes[0], after, &found[0])


def records(const uint8_t[::1] text, const uint8_t[::1] classes, int64_t[::1] starts, int64_t[::1] fields,
            uint8_t[::1] unclear):
    """Find the begin, the number of fields and the clarity of every record; return their number."""
    cdef int64_t n = text.shape[0], count
    _check(classes, min(starts.shape[0], fields.shape[0], unclear.shape[0]), n)
    if n == 0:
        return 0
    with nogil:
        count = list_records(&text[0], n, &classes[0], &starts[0], &fields[0], &unclear[0])
    return count


def transitions(const uint8_t[::1] text, const uint8_t[::1] classes, int64_t[::1] ends):
    """Find the state after the last byte for each state before the first byte."""
    _check(classes, ends.shape[0], STATES)
    cdef uint8_t nothing = 0
    cdef const uint8_t *first = &text[0] if text.shape[0] else &nothing
    with nogil:
        map_states(first, text.shape[0], &classes[0], &ends[0])


cdef _check(const uint8_t[::1] classes, int64_t given, int64_t needed):
    cdef int64_t byte
    if classes.shape[0] != 256 or given < needed:
        raise ValueError(f"{classes.shape[0]} classes of bytes and {given} results; 256 and {needed} are needed")
    for byte in range(256):
        if classes[byte] >= CLASSES:
            raise ValueError(f"byte {byte} has class {classes[byte]}, not one of {CLASSES} classes")
