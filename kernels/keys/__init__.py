"""Keys in a hash table, counted, and the words of a text as keys.

A key is any number of bytes below 2^32. The table is `slots`, uint64 [rows, 4], a `pool` of bytes, uint8, and `state`,
int64 [STATE]. A slot that is used holds

    word 0, 1   the key's bytes, padded with zeros, if there are up to 16; else its hash, and its place in the pool
    word 2      the size of the key · 2^32 + its number + 1; keys are numbered from 0 as they come (32 bits)
    word 3      how often the key was there: the sum of its weights, modulo 2^64

and one that is not used is zero. Of `state`, ENTRIES counts the keys, POOLED the bytes in the pool, SEEN the words;
SPREAD is a factor, at least 1. The capacity C is the largest power of two up to the rows; a table holds up to ¾ C keys.
A key belongs to the first free slot from hash · SPREAD mod 2^64 · C / 2^64 on: entries lie nearly in the order of
their hashes · SPREAD (linear probing, Knuth, The Art of Computer Programming 3, 6.4). If SPREAD parts of a job hold one
part each of the hashes, those of a part still spread over its whole table.

The hash of a key with bytes b: with its 16-byte blocks as pairs of little-endian words, zeros after the last byte,

    h = size;  h = mix(w0 ⊕ M0 ⊕ h, w1 ⊕ M1) for each block;  hash = mix(h ⊕ M2, M0),

where mix is the exclusive or of the halves of a 128-bit product (after W. Yi, wyhash, 2019). A key of no bytes has one
block, of zeros.

`add(data, offsets, size, weights, gids, slots, pool, state, start)`
    Add to the weight of each key, from row `start` on. Key i is data[offsets[i]:offsets[i + 1]], or the i-th `size`
    bytes where `offsets` is None; its weight `weights[i]`, or 1 where that is None. `gids[i]` (uint32), if not None,
    becomes its number. Returns the row at which the table had no room, and the number of rows where it had.
`words(text, start, stop, rule, fold, points, table, others)`
    Count the words of text[start:stop]; 64 bytes must follow it. By rule WHITE they are what white space separates,
    ASCII's as Python's `str.split` has it, and the characters of `points`; by rule WORDS they are runs of ASCII's
    letters and digits, `_`, and the characters of `points`: a bit each (uint8 [0x110000 / 8], the lowest first).
    With `fold` words of ASCII have their capitals made small, and all others are counted in the table `others`; a table
    is (slots, pool, state). Returns where the counting ended: at the begin of the word for which there was no room.
`rehash(old, slots, pool, state)`
    Put the entries of `old` slots into `slots`, which are larger and empty; False where that did not do.
`entries(slots, pool, state, hashes, places)`
    The hashes of all keys, and the rows of their slots, ordered by hash · SPREAD mod 2^64, then hash, then key.
`keys(slots, pool, state, places, data)`
    The bytes of the keys in these slots, one after the other.
`hashes(data, offsets, size, found)`
    The hash of each key, uint64.
`partition(hashes, parts, places, starts)`
    Where each row goes (int64) when rows are ordered by the part, 0 … parts − 1, that ⌊hash · parts / 2^64⌋ is, rows of
    one part in their order; part k begins at `starts[k]`, and `starts[parts]` is the number of rows.
"""

from typing import Any

import numpy as np

OPERATIONS = ("add", "words", "rehash", "entries", "keys", "hashes", "partition")

ENTRIES, POOLED, SPREAD, SEEN, STATE = range(5)
INLINE = 16
WHITE, WORDS = 0, 1
M0, M1, M2 = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F


def empty(rows: int, pool: int = 0, spread: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A table with so many slots and bytes of its pool."""
    state = np.zeros(STATE, np.int64)
    state[SPREAD] = spread
    return np.zeros((rows, 4), np.uint64), np.zeros(pool, np.uint8), state


def example(operation: str, size: int) -> tuple[tuple[Any, ...], int, str]:
    """Arguments for about `size` keys, of which some come often and some are long."""
    draws = np.minimum(np.random.default_rng(size).zipf(1.3, size), 1 << 40).tolist()
    text = b" ".join(b"%d" % n + b"-and-so-forth" * (n % 7 == 0) for n in draws)
    parts = text.split()
    offsets = np.cumsum([0, *map(len, parts)])
    data = np.frombuffer(b"".join(parts), np.uint8)
    rows, pool = 2 * size + 64, len(data)
    if operation == "words":
        buffer = np.frombuffer(text + bytes(64), np.uint8)
        points = np.zeros(0x110000 // 8, np.uint8)
        return (buffer, 0, len(text), WHITE, True, points, empty(rows, pool), empty(64)), len(text), "bytes"
    if operation == "hashes":
        return (data, offsets, 0, np.zeros(size, np.uint64)), size, "keys"
    if operation == "partition":
        hashes = np.random.default_rng(size).integers(0, 2**64, size, np.uint64)
        return (hashes, 13, np.zeros(size, np.int64), np.zeros(14, np.int64)), size, "rows"
    table = empty(rows, pool)
    if operation == "add":
        return (data, offsets, 0, None, np.zeros(size, np.uint32), *table, 0), size, "keys"
    from anyrank.kernels.keys import reference

    reference.add(data, offsets, 0, None, None, *table, 0)
    places = np.flatnonzero(table[0][:, 2])
    n = len(places)
    if operation == "rehash":
        return (table[0], np.zeros((2 * rows, 4), np.uint64), *table[1:]), n, "keys"
    if operation == "entries":
        return (*table, np.zeros(n, np.uint64), np.zeros(n, np.int64)), n, "keys"
    sizes = table[0][places, 2] >> np.uint64(32)
    return (*table, places, np.zeros(int(sizes.sum()), np.uint8)), n, "keys"
