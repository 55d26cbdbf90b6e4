"""A map from keys to their weights and numbers, of one rank: a table of the kernel `keys` that grows."""

from __future__ import annotations

import numpy as np

from anyrank.kernel import Kernel
from anyrank.kernels.keys import ENTRIES, INLINE, POOLED, SEEN, empty
from anyrank.keyed.rows import Text

_add, _words, _rehash = (Kernel("keys", operation) for operation in ("add", "words", "rehash"))
_entries, _keys = Kernel("keys", "entries"), Kernel("keys", "keys")
_hashes, _partition = Kernel("keys", "hashes"), Kernel("keys", "partition")
_MIN_CAPACITY = 1 << 10
#: What is a small capacity: a table of some megabytes.
SMALL_CAPACITY = 1 << 18
#: A number of a key has 32 bits, and none is 0 in a slot.
MAX_KEYS = (1 << 32) - 2


def _rows(capacity: int) -> int:
    """The slots of a table: behind the capacity lie some for keys whose places at the end are taken."""
    return capacity + max(256, capacity >> 5)


class KeyMap:
    """Keys of any bytes with their weights, int64, and the numbers 0, 1, … in which they came.

    `spread` is the number of parts into which the hashes of all keys are split, of which the map may hold one.
    """

    def __init__(self, spread: int = 1):
        self.slots, self.pool, self.state = empty(_rows(_MIN_CAPACITY), 0, spread)

    def __len__(self) -> int:
        return int(self.state[ENTRIES])

    @property
    def capacity(self) -> int:
        """How many slots a key can belong to: a power of two."""
        return 1 << (len(self.slots).bit_length() - 1)

    @property
    def limit(self) -> int:
        """How many keys there is room for."""
        return self.capacity // 4 * 3

    @property
    def nbytes(self) -> int:
        """The bytes of the map's arrays."""
        return int(self.slots.nbytes + self.pool.nbytes)

    @property
    def words_seen(self) -> int:
        """How many words `words` has counted here."""
        return int(self.state[SEEN])

    def add(
        self, keys: Text | np.ndarray, weights: np.ndarray | None = None, gids: np.ndarray | None = None
    ) -> np.ndarray | None:
        """Add the weights (1 where None) to the keys, a Text or the rows of a uint8 matrix; fill and return `gids`."""
        if isinstance(keys, Text):
            data, offsets, size, n = keys.data, keys.offsets, 0, len(keys)
        else:
            data, offsets, size, n = np.ascontiguousarray(keys).reshape(-1), None, keys.shape[1], len(keys)
        done = 0
        while (done := _add(data, offsets, size, weights, gids, self.slots, self.pool, self.state, done)) < n:
            self.make_room(int(offsets[done + 1] - offsets[done]) if offsets is not None else size)
        return gids

    def words(
        self, text: np.ndarray, start: int, stop: int, rule: int, fold: bool, points: np.ndarray, others: KeyMap
    ) -> None:
        """Count the words of text[start:stop]; those beyond ASCII, where they are to be folded, in `others`."""
        while start < stop:
            tables = [(table.slots, table.pool, table.state) for table in (self, others)]
            start = _words(text, start, stop, rule, fold, points, *tables)
            if start < stop:
                size, both = _to_white(text, start, stop), (self, others)
                for table in [table for table in both if len(table) >= table.limit or not table.has_room(size)] or both:
                    table.make_room(size)

    def has_room(self, size: int) -> bool:
        """Whether the pool has room for another key of that size."""
        return size <= INLINE or int(self.state[POOLED]) + size <= len(self.pool)

    def make_room(self, size: int) -> None:
        """Make room for a key of that size that had none: in the pool, or in a larger table."""
        if not self.has_room(size):
            larger = np.zeros(max(2 * len(self.pool), int(self.state[POOLED]) + size, 1 << 12), np.uint8)
            larger[: len(self.pool)] = self.pool
            self.pool = larger
            if len(self) < self.limit:
                return
        self._grow(2 * self.capacity)

    def reserve(self, keys: int) -> None:
        """Have room for so many keys in all, if they are no longer than INLINE."""
        capacity = self.capacity
        # Small tables have more room than they need: a key result at its first place costs less.
        while (capacity // 4 * 3 if capacity > SMALL_CAPACITY else capacity // 2) < keys:
            capacity *= 2
        if capacity > self.capacity:
            self._grow(capacity)

    def _grow(self, capacity: int) -> None:
        if len(self) >= MAX_KEYS:
            raise MemoryError(f"a rank can hold {MAX_KEYS} keys, and there are more: use more ranks")
        slots = np.zeros((_rows(capacity), 4), np.uint64)
        while not _rehash(self.slots, slots, self.pool, self.state):
            capacity *= 2
            slots = np.zeros((_rows(capacity), 4), np.uint64)
        self.slots = slots

    def entries(self) -> tuple[np.ndarray, np.ndarray]:
        """The hashes (uint64) and places (int64) of all keys, by hash · spread mod 2⁶⁴, then hash, then key."""
        hashes, places = np.empty(len(self), np.uint64), np.empty(len(self), np.int64)
        _entries(self.slots, self.pool, self.state, hashes, places)
        return hashes, places

    def weights_at(self, places: np.ndarray) -> np.ndarray:
        """The weights of the keys at these places, int64."""
        return np.asarray(self.slots[places, 3].view(np.int64))

    def gids_at(self, places: np.ndarray) -> np.ndarray:
        """The numbers of the keys at these places, uint32."""
        return np.asarray(self.slots[places, 2].astype(np.uint32) - np.uint32(1))

    def keys_at(self, places: np.ndarray) -> Text:
        """The keys at these places."""
        sizes = (self.slots[places, 2] >> np.uint64(32)).astype(np.int64)
        result = Text.sized(np.empty(int(sizes.sum()), np.uint8), sizes)
        _keys(self.slots, self.pool, self.state, places, result.data)
        return result


def hashes_of(keys: Text | np.ndarray) -> np.ndarray:
    """The hashes of keys, a Text or the rows of a uint8 matrix: uint64."""
    result = np.empty(len(keys), np.uint64)
    if isinstance(keys, Text):
        _hashes(keys.data, keys.offsets, 0, result)
    else:
        _hashes(np.ascontiguousarray(keys).reshape(-1), None, keys.shape[1], result)
    return result


def parts_of(hashes: np.ndarray, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each row goes when rows are ordered by the part of all hashes that theirs is in; where parts begin."""
    places, starts = np.empty(len(hashes), np.int64), np.empty(parts + 1, np.int64)
    _partition(hashes, parts, places, starts)
    return places, starts


def _to_white(text: np.ndarray, start: int, stop: int) -> int:
    """How many bytes there are from `start` to the next white space of ASCII: no word is longer."""
    at = start
    while at < stop:
        part = text[at : min(at + (1 << 16), stop)]
        white = np.flatnonzero((part == 32) | ((part > 8) & (part < 14)))
        if len(white):
            return int(at - start + white[0])
        at += len(part)
    return stop - start
