"""A hash table of counted keys, and the words of a text as keys.

A key is a byte string of less than 2^32 bytes. The table consists of `slots`, uint64 [rows, 4], `pool`, uint8, and
`state`, int64 [STATE]. A used slot contains

    word 0, 1   the bytes of the key, padded with zeros, for up to 16 bytes; otherwise its hash and its pool offset
    word 2      the size of the key · 2^32 + its number + 1; keys are numbered from 0 in order of insertion (32 bits)
    word 3      the count of the key: the sum of its weights, modulo 2^64

and an unused slot is zero. In `state`, ENTRIES is the number of keys, POOLED the bytes used in the pool, and SEEN the
number of words; SPREAD is a factor, at least 1. The capacity C is the largest power of two that is at most the number
of rows; a table holds up to ¾ C keys. The first slot of a key is ⌊(hash · SPREAD mod 2^64) · C / 2^64⌋, and the key is
stored in the first free slot from there on (linear probing; Knuth, The Art of Computer Programming 3, 6.4). Entries are
therefore nearly sorted by hash · SPREAD mod 2^64. If SPREAD ranks each own a contiguous range of the hashes, this
product spreads the keys of a rank over its whole table.

The hash of a key uses its 16-byte blocks as pairs (w0, w1) of little-endian words, padded with zeros:

    h = size;  h = mix(w0 ⊕ M0 ⊕ h, w1 ⊕ M1) for each block;  hash = mix(h ⊕ M2, M0),

where mix is the exclusive or of the halves of a 128-bit product (after W. Yi, wyhash, 2019). An empty key has one
block of zeros.

`add(data, offsets, size, weights, gids, slots, pool, state, start)`
    Add to the weight of each key, from row `start` on. Key i is data[offsets[i]:offsets[i + 1]], or the i-th `size`
    bytes if `offsets` is None. Its weight is `weights[i]`, or 1 if `weights` is None. If `gids` (uint32) is not None,
    `gids[i]` becomes the number of the key. Returns the first row without room in the table, or the number of rows.
`words(text, start, stop, rule, fold, characters, table, others)`
    Count the words of text[start:stop]; 64 readable bytes must follow. With rule WHITE, words are separated by ASCII
    white space as in Python's `str.split`, and by `characters` beyond ASCII. With rule WORDS, words are sequences of
    ASCII letters, digits, `_` and `characters`. `characters` is a bitmap of code points (uint8 [0x110000 / 8], lowest
    bit first). With `fold`, ASCII words are converted to lower case, and all other words are counted in the table
    `others`. A table is (slots, pool, state). Returns `stop`, or the start of the first word without room in its table.
`rehash(old, slots, pool, state)`
    Insert the entries of `old` slots into `slots`, which are larger and empty. Returns False if they do not fit.
`entries(slots, pool, state, hashes, rows)`
    Write the hashes of all keys and the rows of their slots, sorted by hash · SPREAD mod 2^64, then hash, then key.
`keys(slots, pool, state, rows, data)`
    Write the concatenated bytes of the keys in the slots `rows`.
`hashes(data, offsets, size, results)`
    Write the hash of each key, uint64.
`parts(data, offsets, size, parts, numbers, starts)`
    Write the part ⌊hash · parts / 2^64⌋ of each key (uint32), and where each part begins when keys are sorted by part:
    part k at `starts[k]` (int64 [parts + 1]); `starts[parts]` is the number of keys.
`move(numbers, starts, column, result)`
    Sort a column of any 8-byte type, as uint64, stably by part.
`copy(source, starts, sizes, size, n, target, places)`
    Copy n rows of `sizes[i]` bytes, or of `size` bytes if `sizes` is None, from source[starts[i]] to target[places[i]].
    If `starts` or `places` is None, the rows follow one another there. IndexError if a row is outside of an array.
"""

from typing import Any

import numpy as np

OPERATIONS = ("add", "words", "rehash", "entries", "keys", "hashes", "parts", "move", "copy")

ENTRIES, POOLED, SPREAD, SEEN, STATE = range(5)
INLINE = 16
WHITE, WORDS = 0, 1
M0, M1, M2 = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F


def empty(rows: int, pool: int = 0, spread: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return an empty table with this number of slots and pool bytes."""
    state = np.zeros(STATE, np.int64)
    state[SPREAD] = spread
    return np.zeros((rows, 4), np.uint64), np.zeros(pool, np.uint8), state


def example(operation: str, size: int) -> tuple[tuple[Any, ...], int, str]:
    """Return arguments for about `size` keys; some are frequent and some are long."""
    draws = np.minimum(np.random.default_rng(size).zipf(1.3, size), 1 << 40).tolist()
    text = b" ".join(b"%d" % n + b"-and-so-forth" * (n % 7 == 0) for n in draws)
    parts = text.split()
    offsets = np.cumsum([0, *map(len, parts)])
    data = np.frombuffer(b"".join(parts), np.uint8)
    rows, pool = 2 * size + 64, len(data)
    if operation == "words":
        buffer = np.frombuffer(text + bytes(64), np.uint8)
        characters = np.zeros(0x110000 // 8, np.uint8)
        return (buffer, 0, len(text), WHITE, True, characters, empty(rows, pool), empty(64)), len(text), "bytes"
    if operation == "hashes":
        return (data, offsets, 0, np.zeros(size, np.uint64)), size, "keys"
    if operation == "parts":
        return (data, offsets, 0, 13, np.zeros(size, np.uint32), np.zeros(14, np.int64)), size, "keys"
    if operation == "copy":
        order = np.random.default_rng(size).permutation(size)
        return (data, offsets[order], np.diff(offsets)[order], 0, size, np.zeros_like(data), None), size, "rows"
    if operation == "move":
        numbers = np.random.default_rng(size).integers(0, 13, size).astype(np.uint32)
        starts = np.searchsorted(np.sort(numbers), np.arange(14))
        return (numbers, starts, np.arange(size, dtype=np.uint64), np.zeros(size, np.uint64)), size, "rows"
    table = empty(rows, pool)
    if operation == "add":
        return (data, offsets, 0, None, np.zeros(size, np.uint32), *table, 0), size, "keys"
    from anyrank.kernels.keys import reference

    reference.add(data, offsets, 0, None, None, *table, 0)
    used = np.flatnonzero(table[0][:, 2])
    n = len(used)
    if operation == "rehash":
        return (table[0], np.zeros((2 * rows, 4), np.uint64), *table[1:]), n, "keys"
    if operation == "entries":
        return (*table, np.zeros(n, np.uint64), np.zeros(n, np.int64)), n, "keys"
    sizes = table[0][used, 2] >> np.uint64(32)
    return (*table, used, np.zeros(int(sizes.sum()), np.uint8)), n, "keys"
