"""Keys in plain Python: the definition."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from anyrank.kernels.keys import ENTRIES, INLINE, M0, M1, M2, POOLED, SEEN, SPREAD, WHITE

_MASK = (1 << 64) - 1
Table = tuple[np.ndarray, np.ndarray, np.ndarray]


def _mix(a: int, b: int) -> int:
    product = a * b
    return (product ^ product >> 64) & _MASK


def _blocks(key: bytes) -> Iterator[tuple[int, int]]:
    for at in range(0, max(len(key), 1), INLINE):
        block = key[at : at + INLINE].ljust(INLINE, b"\0")
        yield int.from_bytes(block[:8], "little"), int.from_bytes(block[8:], "little")


def hash_of(key: bytes) -> int:
    """Return the hash of a key."""
    h = len(key)
    for w0, w1 in _blocks(key):
        h = _mix(w0 ^ M0 ^ h, w1 ^ M1)
    return _mix(h ^ M2, M0)


def _key(slot: Any, pool: np.ndarray) -> bytes:
    size = int(slot[2]) >> 32
    data = slot[:2].tobytes() if size <= INLINE else pool[int(slot[1]) :].tobytes()
    return data[:size]


def _first_row(slots: np.ndarray, state: np.ndarray, hash_: int) -> int:
    bits = len(slots).bit_length() - 1
    return (hash_ * int(state[SPREAD]) & _MASK) >> (64 - bits)


def _slot(key: bytes, slots: np.ndarray, pool: np.ndarray, state: np.ndarray) -> Any:
    """Return the slot of a key, or None if there is no room for it."""
    hash_ = hash_of(key)
    for row in range(_first_row(slots, state, hash_), len(slots)):
        slot = slots[row]
        if not slot[2]:
            return _insert(key, hash_, slot, slots, pool, state)
        if int(slot[2]) >> 32 == len(key) and _key(slot, pool) == key:
            return slot
    return None


def _insert(key: bytes, hash_: int, slot: Any, slots: np.ndarray, pool: np.ndarray, state: np.ndarray) -> Any:
    limit = (1 << len(slots).bit_length() - 1) // 4 * 3
    at = int(state[POOLED])
    if state[ENTRIES] >= limit or (len(key) > INLINE and at + len(key) > len(pool)):
        return None
    if len(key) > INLINE:
        pool[at : at + len(key)] = np.frombuffer(key, np.uint8)
        state[POOLED] += len(key)
        slot[:2] = hash_, at
    else:
        slot[:2] = next(_blocks(key))
    state[ENTRIES] += 1
    slot[2:] = len(key) << 32 | int(state[ENTRIES]), 0
    return slot


def add(
    data: np.ndarray,
    offsets: np.ndarray | None,
    size: int,
    weights: np.ndarray | None,
    gids: np.ndarray | None,
    slots: np.ndarray,
    pool: np.ndarray,
    state: np.ndarray,
    start: int,
) -> int:
    """Add to the weight of each key."""
    text = data.tobytes()
    borders = offsets.tolist() if offsets is not None else range(0, len(text) + 1, size)
    for row in range(start, len(borders) - 1):
        slot = _slot(text[borders[row] : borders[row + 1]], slots, pool, state)
        if slot is None:
            return row
        slot[3] += np.uint64(1 if weights is None else int(weights[row]) & _MASK)
        if gids is not None:
            gids[row] = (int(slot[2]) & 0xFFFFFFFF) - 1
    return len(borders) - 1


_ASCII = {WHITE: " \t\n\v\f\r\x1c\x1d\x1e\x1f", 1: "_0-9A-Za-z"}


def _word_pattern(rule: int, characters: np.ndarray) -> re.Pattern[str]:
    """Return a pattern for words; bytes that are not valid UTF-8 are surrogates, which are not in `characters`."""
    beyond = np.flatnonzero(np.unpackbits(characters, bitorder="little"))
    listed = "".join(re.escape(chr(point)) for point in beyond if point > 0x7F)
    return re.compile(f"[{'^' if rule == WHITE else ''}{_ASCII[rule]}{listed}]+")


def words(
    text: np.ndarray, start: int, stop: int, rule: int, fold: bool, characters: np.ndarray, table: Table, others: Table
) -> int:
    """Count the words of text[start:stop]."""
    whole = text[start:stop].tobytes().decode(errors="surrogateescape")
    at, before = start, 0
    for match in _word_pattern(rule, characters).finditer(whole):
        at += len(whole[before : match.start()].encode(errors="surrogateescape"))
        before = match.start()
        key = match[0].encode(errors="surrogateescape")
        foldable = fold and key.isascii()
        target = others if fold and not foldable else table
        slot = _slot(key.lower() if foldable else key, *target)
        if slot is None:
            return at
        slot[3] += np.uint64(1)
        target[2][SEEN] += 1
    return stop


def rehash(old: np.ndarray, slots: np.ndarray, pool: np.ndarray, state: np.ndarray) -> bool:
    """Insert the entries of old slots into larger slots."""
    for slot in old[old[:, 2] != 0]:
        row = _first_row(slots, state, hash_of(_key(slot, pool)))
        while row < len(slots) and slots[row, 2]:
            row += 1
        if row == len(slots):
            return False
        slots[row] = slot
    return True


def entries(slots: np.ndarray, pool: np.ndarray, state: np.ndarray, hashes: np.ndarray, rows: np.ndarray) -> None:
    """Write the hashes of all keys and the rows of their slots, sorted."""
    keys_and_rows = [(_key(slots[row], pool), row) for row in np.flatnonzero(slots[:, 2]).tolist()]
    entries = [(hash_of(key), key, row) for key, row in keys_and_rows]
    entries.sort(key=lambda entry: (entry[0] * int(state[SPREAD]) & _MASK, *entry))
    n = len(entries)
    hashes[:n], rows[:n] = [entry[0] for entry in entries], [entry[2] for entry in entries]


def keys(slots: np.ndarray, pool: np.ndarray, state: np.ndarray, rows: np.ndarray, data: np.ndarray) -> None:
    """Write the concatenated bytes of the keys in these slots."""
    content = b"".join(_key(slots[row], pool) for row in rows.tolist())
    data[: len(content)] = np.frombuffer(content, np.uint8)


def hashes(data: np.ndarray, offsets: np.ndarray | None, size: int, results: np.ndarray) -> None:
    """Write the hash of each key."""
    text = data.tobytes()
    borders = offsets.tolist() if offsets is not None else range(0, len(text) + 1, size)
    results[: len(borders) - 1] = [hash_of(text[a:b]) for a, b in pairwise(borders)]


def parts(
    data: np.ndarray, offsets: np.ndarray | None, size: int, parts: int, numbers: np.ndarray, starts: np.ndarray
) -> None:
    """Write the part of each key, and where each part begins."""
    found = np.zeros(len(numbers), np.uint64)
    hashes(data, offsets, size, found)
    n = len(offsets) - 1 if offsets is not None else len(data) // size
    numbers[:n] = [value * parts >> 64 for value in found[:n].tolist()]
    starts[: parts + 1] = np.searchsorted(np.sort(numbers[:n]), np.arange(parts + 1))


def move(numbers: np.ndarray, starts: np.ndarray, column: np.ndarray, result: np.ndarray) -> None:
    """Sort a column stably by part."""
    if not np.array_equal(np.searchsorted(np.sort(numbers), np.arange(len(starts))), starts):
        raise ValueError(f"the numbers of {len(numbers)} rows are not those of the {len(starts) - 1} parts")
    result[:] = column[np.argsort(numbers, kind="stable")]


def copy(
    source: np.ndarray,
    starts: np.ndarray | None,
    sizes: np.ndarray | None,
    size: int,
    n: int,
    target: np.ndarray,
    places: np.ndarray | None,
) -> None:
    """Copy rows of bytes."""
    if any(given is not None and len(given) != n for given in (starts, sizes, places)):
        raise ValueError(f"positions or sizes are not those of {n} rows")
    a = b = 0
    for row in range(n):
        a = int(starts[row]) if starts is not None else a
        b = int(places[row]) if places is not None else b
        size = int(sizes[row]) if sizes is not None else size
        if size < 0 or not 0 <= a <= len(source) - size or not 0 <= b <= len(target) - size:
            raise IndexError(f"row {row} is not within {len(source)} bytes, or not within {len(target)}")
        target[b : b + size] = source[a : a + size]
        a, b = a + size, b + size
