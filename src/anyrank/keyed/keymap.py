"""A map from keys to weights and key numbers on one rank: a growing hash table for the kernel `keys`."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from anyrank.errors import UsageError
from anyrank.kernel import Kernel
from anyrank.kernels.keys import ENTRIES, INLINE, POOLED, SEEN, empty
from anyrank.keyed.rows import Text

_add, _words, _rehash = (Kernel("keys", operation) for operation in ("add", "words", "rehash"))
_entries, _keys = Kernel("keys", "entries"), Kernel("keys", "keys")
_hashes, _parts, _move = (Kernel("keys", operation) for operation in ("hashes", "parts", "move"))
_MIN_CAPACITY = 1 << 10
#: Tables up to this capacity (a few megabytes) are kept at most half full.
SMALL_CAPACITY = 1 << 18
#: A slot stores the key number plus 1 in 32 bits; 0 marks an empty slot.
MAX_KEYS = (1 << 32) - 2
#: A slot stores the size of a key in 32 bits.
MAX_KEY_BYTES = (1 << 32) - 1


def _slot_count(capacity: int) -> int:
    """Return the number of slots: extra slots after the capacity take keys that overflow the end of the table."""
    return capacity + max(256, capacity >> 5)


class KeyMap:
    """A map from keys (arbitrary bytes) to int64 weights and key numbers 0, 1, … in order of insertion.

    `spread` is the number of parts into which the hashes of all keys are split; the map may hold only one part.
    """

    def __init__(self, spread: int = 1):
        self.slots, self.pool, self.state = empty(_slot_count(_MIN_CAPACITY), 0, spread)

    def __len__(self) -> int:
        return int(self.state[ENTRIES])

    @property
    def capacity(self) -> int:
        """The number of slots that a hash can select: a power of two."""
        return 1 << (len(self.slots).bit_length() - 1)

    @property
    def limit(self) -> int:
        """The maximum number of keys before the table grows."""
        return self.capacity // 4 * 3

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays of the map."""
        return int(self.slots.nbytes + self.pool.nbytes)

    @property
    def words_seen(self) -> int:
        """The number of words that `words` counted in this map."""
        return int(self.state[SEEN])

    def add(
        self, keys: Text | np.ndarray, weights: np.ndarray | None = None, gids: np.ndarray | None = None
    ) -> np.ndarray | None:
        """Add weights (None: 1 each) to keys, a Text or the rows of a uint8 matrix; store key numbers in `gids`."""
        (data, offsets, size), n = _raw(keys), len(keys)
        if n and max(size, len(data) if offsets is not None else 0) > MAX_KEY_BYTES:
            longest = int(keys.sizes.max()) if isinstance(keys, Text) else size
            if longest > MAX_KEY_BYTES:
                raise UsageError(f"a key has {longest} bytes; at most {MAX_KEY_BYTES} are possible. Use shorter keys.")
        done = 0
        while (done := _add(data, offsets, size, weights, gids, self.slots, self.pool, self.state, done)) < n:
            self.make_room(int(offsets[done + 1] - offsets[done]) if offsets is not None else size)
        return gids

    def words(
        self, text: np.ndarray, start: int, stop: int, rule: int, fold: bool, characters: np.ndarray, others: KeyMap
    ) -> None:
        """Count the words of text[start:stop]; with `fold`, words that are not ASCII are counted in `others`."""
        while start < stop:
            tables = [(table.slots, table.pool, table.state) for table in (self, others)]
            start = _words(text, start, stop, rule, fold, characters, *tables)
            if start < stop:
                size, both = _length_to_white_space(text, start, stop), (self, others)
                full = [table for table in both if len(table) >= table.limit or not table.has_room(size)]
                for table in full or both:
                    table.make_room(size)

    def has_room(self, size: int) -> bool:
        """Return whether the pool has room for another key of that size in bytes."""
        return size <= INLINE or int(self.state[POOLED]) + size <= len(self.pool)

    def make_room(self, size: int) -> None:
        """Make room for a key of that size in bytes: enlarge the pool or the table."""
        if not self.has_room(size):
            larger = np.zeros(max(2 * len(self.pool), int(self.state[POOLED]) + size, 1 << 12), np.uint8)
            larger[: len(self.pool)] = self.pool
            self.pool = larger
            if len(self) < self.limit:
                return
        self._grow(2 * self.capacity)

    def reserve(self, keys: int) -> None:
        """Grow the table for a total number of keys; keys longer than INLINE bytes also need room in the pool."""
        capacity = self.capacity
        # A small table is at most half full: then most keys are in the first slot that is searched.
        while (capacity // 4 * 3 if capacity > SMALL_CAPACITY else capacity // 2) < keys:
            capacity *= 2
        if capacity > self.capacity:
            self._grow(capacity)

    def _grow(self, capacity: int) -> None:
        if len(self) >= MAX_KEYS:
            raise MemoryError(f"a rank can hold at most {MAX_KEYS} keys. Use more ranks.")
        slots = np.zeros((_slot_count(capacity), 4), np.uint64)
        while not _rehash(self.slots, slots, self.pool, self.state):
            capacity *= 2
            slots = np.zeros((_slot_count(capacity), 4), np.uint64)
        self.slots = slots

    def entries(self) -> tuple[np.ndarray, np.ndarray]:
        """Return hashes (uint64) and slot indices (int64) of all keys, sorted by hash · spread mod 2⁶⁴, hash, key."""
        hashes, indices = np.empty(len(self), np.uint64), np.empty(len(self), np.int64)
        _entries(self.slots, self.pool, self.state, hashes, indices)
        return hashes, indices

    def weights_at(self, indices: np.ndarray) -> np.ndarray:
        """Return the weights of the keys in these slots, int64."""
        return np.asarray(self.slots[indices, 3].view(np.int64))

    def gids_at(self, indices: np.ndarray) -> np.ndarray:
        """Return the numbers of the keys in these slots, uint32."""
        return np.asarray(self.slots[indices, 2].astype(np.uint32) - np.uint32(1))

    def keys_at(self, indices: np.ndarray) -> Text:
        """Return the keys in these slots."""
        sizes = (self.slots[indices, 2] >> np.uint64(32)).astype(np.int64)
        result = Text.sized(np.empty(int(sizes.sum()), np.uint8), sizes)
        _keys(self.slots, self.pool, self.state, indices, result.data)
        return result


def hashes_of(keys: Text | np.ndarray) -> np.ndarray:
    """Return the hashes (uint64) of keys, a Text or the rows of a uint8 matrix."""
    result = np.empty(len(keys), np.uint64)
    _hashes(*_raw(keys), result)
    return result


def _raw(keys: Text | np.ndarray) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Return data, offsets and size for the kernels."""
    if isinstance(keys, Text):
        return keys.data, keys.offsets, 0
    return np.ascontiguousarray(keys).reshape(-1), None, keys.shape[1]


def hash_range(rank: int, ranks: int) -> tuple[int, int]:
    """Return the first hash that a rank owns, and the one after the last."""
    return -(-(rank << 64) // ranks), -(-((rank + 1) << 64) // ranks)


def owners_of(hashes: np.ndarray, ranks: int) -> np.ndarray:
    """Return the owner of each hash; ranks own equal ranges of hashes. uint16, or int64 for over 65536 ranks."""
    borders = [hash_range(rank, ranks)[0] for rank in range(1, ranks)]
    owners = np.searchsorted(np.array(borders, np.uint64), hashes, side="right")
    return owners.astype(np.uint16) if ranks <= 1 << 16 else owners


class Partition:
    """The rows of a batch sorted stably by the part of their keys' hashes; the parts are equal ranges of hashes.

    Part k is rows `starts[k]` to `starts[k + 1]`.
    """

    def __init__(self, keys: Text | np.ndarray, parts: int):
        self._numbers, self.starts = np.empty(len(keys), np.uint32), np.empty(parts + 1, np.int64)
        _parts(*_raw(keys), parts, self._numbers, self.starts)

    def move(self, column: np.ndarray) -> np.ndarray:
        """Return the rows of a column in the order of the parts."""
        result = np.empty(column.shape, column.dtype)
        if column.itemsize * math.prod(column.shape[1:]) != 8:
            return np.take(column, self.order, axis=0, out=result, mode="clip")
        _move(self._numbers, self.starts, _words_of(column), _words_of(result))
        return result

    @cached_property
    def order(self) -> np.ndarray:
        """The number of each row before it was moved."""
        return self.move(np.arange(len(self._numbers)))


def _words_of(column: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(column).reshape(-1).view(np.uint64)


def _length_to_white_space(text: np.ndarray, start: int, stop: int) -> int:
    """Return the number of bytes from `start` to the next ASCII white space: an upper bound of the word length."""
    at = start
    while at < stop:
        part = text[at : min(at + (1 << 16), stop)]
        white = np.flatnonzero((part == 32) | ((part > 8) & (part < 14)))
        if len(white):
            return int(at - start + white[0])
        at += len(part)
    return stop - start
