"""Keys for the CPU, compiled ahead of time; the loops are in cpu.h."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

import numpy as np


#: More parts than this have no lines, which would not fit into the caches.
cdef enum:
    MOST_LINES = 1 << 14


cdef extern from "cpu.h" nogil:
    cdef struct table:
        pass
    void open_table(table *t, uint64_t *slots, int64_t rows, uint8_t *pool, int64_t room, int64_t *state)
    int64_t add_keys(const uint8_t *data, const uint8_t *end, const int64_t *offsets, int64_t size, int64_t start,
                     int64_t n, const int64_t *weights, uint32_t *gids, table *t)
    int64_t count_words(const uint8_t *text, int64_t start, int64_t stop, int words, int fold, const uint8_t *characters,
                        table *t, table *others)
    int64_t rehash_slots(const uint64_t *old, int64_t rows, table *t)
    void list_entries(const table *t, uint64_t *hashes, int64_t *rows)
    void hash_keys(const uint8_t *data, const uint8_t *end, const int64_t *offsets, int64_t size, int64_t n,
                   uint64_t *hashes)
    void part_keys(const uint8_t *data, const uint8_t *end, const int64_t *offsets, int64_t size, int64_t n,
                   int64_t parts, uint32_t *numbers, int64_t *starts)
    int64_t copy_rows(const uint8_t *source, int64_t room, const int64_t *starts, const int64_t *sizes, int64_t size,
                      int64_t n, uint8_t *target, int64_t space, const int64_t *places)
    int move_words(const uint32_t *numbers, const int64_t *starts, int64_t parts, const uint64_t *source, int64_t n,
                   uint64_t *to, int64_t *next, uint64_t *lines)
    void copy_keys(const table *t, const int64_t *rows, int64_t n, uint8_t *data)


cdef table _open(uint64_t[:, ::1] slots, uint8_t[::1] pool, int64_t[::1] state):
    cdef table t
    if slots.shape[0] < 2 or slots.shape[1] != 4 or state.shape[0] < 4:
        raise ValueError(f"a table of {slots.shape[0]} x {slots.shape[1]} slots")
    open_table(&t, &slots[0, 0], slots.shape[0], &pool[0] if pool.shape[0] else NULL, pool.shape[0], &state[0])
    return t


def add(const uint8_t[::1] data, const int64_t[::1] offsets, int64_t size, const int64_t[::1] weights,
        uint32_t[::1] gids, slots, pool, state, int64_t start):
    """Add to the weight of each key."""
    cdef table t = _open(slots, pool, state)
    cdef int64_t n = offsets.shape[0] - 1 if offsets is not None else data.shape[0] // size
    if n <= start:
        return n
    cdef uint8_t nothing = 0
    cdef const uint8_t *first = &data[0] if data.shape[0] else &nothing
    cdef const int64_t *at = &offsets[0] if offsets is not None else NULL
    cdef const int64_t *weight = &weights[0] if weights is not None else NULL
    cdef uint32_t *number = &gids[0] if gids is not None else NULL
    cdef int64_t done
    with nogil:
        done = add_keys(first, first + data.shape[0], at, size, start, n, weight, number, &t)
    return done


def words(const uint8_t[::1] text, int64_t start, int64_t stop, int rule, bint fold, const uint8_t[::1] characters,
          counted, others):
    """Count the words of text[start:stop]."""
    cdef table t = _open(counted[0], counted[1], counted[2]), u = _open(others[0], others[1], others[2])
    if start >= stop:
        return stop
    if start < 0 or stop + 64 > text.shape[0] or characters.shape[0] < 0x110000 // 8:
        raise ValueError(f"text[{start}:{stop}] of {text.shape[0]} bytes needs 64 bytes after it")
    cdef int64_t done
    with nogil:
        done = count_words(&text[0], start, stop, rule, fold, &characters[0], &t, &u)
    return done


def rehash(const uint64_t[:, ::1] old, slots, pool, state):
    """Insert the entries of old slots into larger slots."""
    cdef table t = _open(slots, pool, state)
    cdef int64_t done
    with nogil:
        done = rehash_slots(&old[0, 0], old.shape[0], &t)
    return bool(done)


def entries(slots, pool, state, uint64_t[::1] hashes, int64_t[::1] rows):
    """Write the hashes of all keys and the rows of their slots, sorted."""
    cdef table t = _open(slots, pool, state)
    if hashes.shape[0] < state[0] or rows.shape[0] < state[0]:
        raise ValueError(f"{hashes.shape[0]} elements cannot take {state[0]} entries")
    if state[0]:
        with nogil:
            list_entries(&t, &hashes[0], &rows[0])


def keys(slots, pool, state, const int64_t[::1] rows, uint8_t[::1] data):
    """Write the concatenated bytes of the keys in these slots."""
    cdef table t = _open(slots, pool, state)
    if rows.shape[0] and data.shape[0]:
        with nogil:
            copy_keys(&t, &rows[0], rows.shape[0], &data[0])


def hashes(const uint8_t[::1] data, const int64_t[::1] offsets, int64_t size, uint64_t[::1] results):
    """Write the hash of each key."""
    cdef int64_t n = offsets.shape[0] - 1 if offsets is not None else data.shape[0] // size
    if results.shape[0] < n:
        raise ValueError(f"{results.shape[0]} elements cannot take {n} hashes")
    cdef uint8_t nothing = 0
    cdef const uint8_t *first = &data[0] if data.shape[0] else &nothing
    cdef const int64_t *at = &offsets[0] if offsets is not None else NULL
    if n:
        with nogil:
            hash_keys(first, first + data.shape[0], at, size, n, &results[0])


def parts(const uint8_t[::1] data, const int64_t[::1] offsets, int64_t size, int64_t parts, uint32_t[::1] numbers,
          int64_t[::1] starts):
    """Write the part of each key, and where each part begins."""
    cdef int64_t n = offsets.shape[0] - 1 if offsets is not None else data.shape[0] // size
    if not 1 <= parts <= 2**32 or numbers.shape[0] < n or starts.shape[0] <= parts:
        raise ValueError(f"{parts} parts of {n} keys, {numbers.shape[0]} numbers, {starts.shape[0]} starts")
    cdef uint8_t nothing = 0
    cdef const uint8_t *first = &data[0] if data.shape[0] else &nothing
    cdef const int64_t *at = &offsets[0] if offsets is not None else NULL
    cdef uint32_t none = 0
    with nogil:
        part_keys(first, first + data.shape[0], at, size, n, parts, &numbers[0] if n else &none, &starts[0])


def move(const uint32_t[::1] numbers, const int64_t[::1] starts, const uint64_t[::1] column, uint64_t[::1] result):
    """Sort a column stably by part."""
    cdef int64_t n = numbers.shape[0], parts = starts.shape[0] - 1
    cdef int right
    if parts < 1 or column.shape[0] != n or result.shape[0] != n or starts[0] != 0 or starts[parts] != n:
        raise ValueError(f"{n} numbers of {parts} parts cannot move {column.shape[0]} rows to {result.shape[0]}")
    if not n:
        return
    cdef int64_t[::1] ends = np.empty(parts, np.int64)
    cdef uint64_t[::1] lines = np.empty(8 * parts if parts <= MOST_LINES else 0, np.uint64)
    cdef uint64_t *line = &lines[0] if lines.shape[0] else NULL
    with nogil:
        right = move_words(&numbers[0], &starts[0], parts, &column[0], n, &result[0], &ends[0], line)
    if not right:
        raise ValueError(f"the numbers of {n} rows are not those of the {parts} parts")


cdef const int64_t *_rows_of(const int64_t[::1] given, int64_t n) except? NULL:
    if given is None:
        return NULL
    if given.shape[0] != n:
        raise ValueError(f"{given.shape[0]} positions or sizes of {n} rows")
    return &given[0]


def copy(const uint8_t[::1] source, const int64_t[::1] starts, const int64_t[::1] sizes, int64_t size, int64_t n,
         uint8_t[::1] target, const int64_t[::1] places):
    """Copy rows of bytes."""
    cdef uint8_t nothing = 0
    cdef const uint8_t *data = &source[0] if source.shape[0] else &nothing
    cdef uint8_t *to = &target[0] if target.shape[0] else &nothing
    cdef int64_t done
    if not n:
        return
    cdef const int64_t *start = _rows_of(starts, n)
    cdef const int64_t *length = _rows_of(sizes, n)
    cdef const int64_t *place = _rows_of(places, n)
    with nogil:
        done = copy_rows(data, source.shape[0], start, length, size, n, to, target.shape[0], place)
    if done < n:
        raise IndexError(f"row {done} is not within {source.shape[0]} bytes, or not within {target.shape[0]}")
