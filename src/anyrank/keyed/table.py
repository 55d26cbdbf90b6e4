"""Table: rows that are combined by key and distributed over the ranks by key."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from anyrank.errors import UsageError
from anyrank.exchange.shuffle import Shuffle
from anyrank.keyed.combine import Combine, combine_called
from anyrank.keyed.composite_keys import decode, encode
from anyrank.keyed.keymap import KeyMap, Partition, hashes_of, owners_of
from anyrank.keyed.row_batch import RowBatch
from anyrank.keyed.rows import Column, Columns, concat
from anyrank.keyed.runs import columns_between
from anyrank.keyed.sample import estimate_cardinality, expected_distinct, heavy_hitters, sample_rows
from anyrank.keyed.spill import KEY
from anyrank.keyed.table_storage import StoredTable
from anyrank.keyed.values import without_nulls
from anyrank.layout import even_cuts
from anyrank.world import World

ROUND_BYTES = 1 << 26  #: Maximum bytes that a rank sends in one round of a shuffle.
#: A batch of at least PARTITION_ROWS rows is first partitioned by hash, into at most MAX_PARTS parts. The
#: map entries of one part (about KEY_BYTES per key) fit into CACHE_BYTES. A map below ONE_PART_BYTES has one part.
PARTITION_ROWS, MAX_PARTS, KEY_BYTES, CACHE_BYTES, ONE_PART_BYTES = 1 << 16, 1 << 10, 64, 1 << 19, 1 << 23
#: Maximum rows of a round, minimum rows partitioned at a time, and rows combined at a time.
ROUND_ROWS, ROWS_PARTITIONED, SLICE_ROWS = 1 << 23, 1 << 22, 1 << 16
FEW_RANKS = 4  #: Up to this number of ranks, received rows are merged without partitioning them again.
TEXT = "text"  #: The type of a text key: bytes of any length.


class Table(StoredTable):
    """Rows that are combined by a key of one or several columns; `count` is the number of rows added per key.

    A rank may add rows with any key; rows with equal keys are combined immediately. `settle` sends each key to the rank
    that owns its hash. The settled rows are sorted by hash over all ranks, whatever the number of ranks.

    Parameters
    ----------
    name, description : str
        The name in the State, and a description for readers of a checkpoint.
    world : World
        The ranks that hold the rows.
    keys : mapping of str to dtype
        The key columns: `text`, or a dtype of fixed size.
    values : mapping of str to (dtype, str), optional
        The values to combine: int64, uint64 or float64, by `sum` (integers only), `min`, `max`, `exact` (exact sum)
        or `squares` (exact sum of squares).

    Raises
    ------
    UsageError
        If a column has an invalid name or type, or cannot be combined in this way.

    Examples
    --------
    >>> visits = Table("visits", World(), {"user": "int64"}, {"visited": ("int64", "max")})
    >>> visits.add([7, 7, 8], visited=[3, 1, 5])
    >>> visits.rows, sorted(visits.columns["visited"].tolist())
    (2, [3, 5])
    """

    def __init__(
        self,
        name: str,
        world: World,
        keys: Mapping[str, DTypeLike],
        values: Mapping[str, tuple[DTypeLike, str]] | None = None,
        *,
        description: str = "",
    ):
        super().__init__(name, world, description)
        self.keys = {key: None if kind == TEXT else np.dtype(kind) for key, kind in keys.items()}
        self.values = {value: combine_called(how, np.dtype(kind)) for value, (kind, how) in (values or {}).items()}
        self._declared = keys, values
        self._check()
        self.clear()

    def _check(self) -> None:
        names = [*self.keys, "count", *self.values]
        if not self.keys or len({*names}) < len(names) or not all(name.isidentifier() for name in names):
            raise UsageError(f"table {self.name}: columns {names} need a key and distinct identifiers. Rename them.")
        if any(kind is not None and kind.hasobject for kind in self.keys.values()):
            raise UsageError(f"table {self.name}: a key's dtype must have a fixed size; use {TEXT!r} for strings.")

    def clear(self) -> None:
        """Remove all rows of this rank. Not collective."""
        self._map, self._disk = KeyMap(self.spread), None
        self._combined, self._all_owned = {name: value.new() for name, value in self.values.items()}, True
        self._mark_changed(owned=True)

    def _mark_changed(self, owned: bool = False) -> None:
        """Record that rows have changed; `owned`: the keys of the changed rows belong to this rank."""
        self._all_owned &= owned or self.world.size == 1
        self._settled = False
        self._sorted_columns: Columns | None = None

    def __repr__(self) -> str:
        return f"Table({self.name}, keys={[*self.keys]}, values={[*self.values]}, local={len(self)})"

    def __len__(self) -> int:
        """Return the number of keys on this rank; in a settled table, of the keys that this rank owns."""
        return len(self._map) + (0 if self._disk is None else len(self._disk))

    @property
    def nbytes(self) -> int:
        """Bytes of memory on this rank."""
        return self._map.nbytes + sum(value.nbytes for value in self._combined.values())

    @property
    def row_bytes(self) -> int:
        """The bytes of memory of a row, without the bytes of a text."""
        arrays = (array for value in self._combined.values() for array in value.arrays.values())
        return KEY_BYTES + sum(array.itemsize * math.prod(array.shape[1:]) for array in arrays)

    def add(
        self, *keys: Column | Sequence[Any], count: np.ndarray | None = None, **values: np.ndarray | Sequence[Any]
    ) -> None:
        """Add rows and combine them by key. Not collective.

        Parameters
        ----------
        *keys : array, Text or sequence
            A column for each key column, in their order.
        count : int64 array, optional
            The number of rows that each row counts for; 1 if not given.
        **values : array or sequence
            A column for each value. Masked values are ignored.

        Raises
        ------
        TypeError
            If columns are missing or their lengths differ.
        """
        self._add_rows(self._make_batch(keys, count, values))

    def gather(
        self, *keys: Column | Sequence[Any], count: np.ndarray | None = None, **values: np.ndarray | Sequence[Any]
    ) -> None:
        """Add rows like `add`; if few rows share a key, send them to the owner of the key immediately. Collective.

        Rows of heavy hitters are still combined on this rank, so that their owner does not receive all of them.

        Parameters
        ----------
        *keys, count, **values
            See `add`.
        """
        rows, world = self._make_batch(keys, count, values), self.world
        sample = hashes_of(rows.keys[sample_rows(len(rows))])
        local = np.array([estimate_cardinality(sample), len(rows), *rows.message_flags], np.int64)
        estimates, n, *message_flags = world.allreduce(local).tolist()
        distinct = estimates // world.size
        # Combining first pays if a rank has at least two rows per key of its rows. This is also true without any rows.
        if world.size == 1 or 2 * expected_distinct(distinct, n // world.size) * world.size <= n:
            self._add_rows(rows)
            return
        own, frequent = expected_distinct(distinct, n) // world.size, heavy_hitters(sample, world.size)
        self._reserve(max(len(self._map), own) * 17 // 16)  # 1/16 more than expected
        rows = rows.with_message_flags(message_flags)  # all ranks must send the same columns
        rounds = -(-int(world.allreduce(np.array([len(rows)]), "max")[0]) // ROUND_ROWS)
        for first, last in pairwise(even_cuts(len(rows), rounds)):
            self._send_to_owners(rows.take(slice(first, last)), own, frequent)

    def _send_to_owners(self, rows: RowBatch, own: int, frequent: np.ndarray) -> None:
        """Send rows to the owners of their keys (about `own` keys each); combine heavy hitters here. Collective."""
        world = self.world
        if len(frequent):
            here = np.isin(hashes_of(rows.keys), frequent)
            self._add_rows(rows.take(here))
            rows = rows.take(~here)
        parts_per_rank = self._part_count(max(own, len(self._map))) if world.size <= FEW_RANKS else 1
        partition = Partition(rows.keys, world.size * parts_per_rank)
        rows = rows.reorder(partition).send(Shuffle(world, np.diff(partition.starts[::parts_per_rank])))
        # With few sources, each sends many rows of every part, already partitioned: no need to partition again.
        if world.size <= FEW_RANKS:
            self._merge(rows, raw=True, owned=True)
        else:
            self._add_rows(rows, owned=True)

    def _reserve(self, keys: int) -> None:
        """Reserve room for a total number of keys and their values."""
        self._map.reserve(keys)
        for combined in self._combined.values():
            combined.make_room(keys)

    def _make_batch(self, keys: Sequence[Any], count: np.ndarray | None, values: Mapping[str, Any]) -> RowBatch:
        lengths = {len(column) for column in (*keys, *values.values(), *([] if count is None else [count]))}
        if len(keys) != len(self.keys) or values.keys() != self.values.keys() or len(lengths) != 1:
            raise TypeError(f"table {self.name} takes keys {[*self.keys]} and values {[*self.values]} of one length")
        weights = None if count is None else np.ascontiguousarray(count, np.int64)
        typed = {name: np.asanyarray(values[name], value.dtype) for name, value in self._combined.items()}
        return RowBatch(encode(self.keys, keys), weights, {name: {"": x} for name, x in typed.items()})

    def _add_rows(self, rows: RowBatch, owned: bool = False) -> None:
        """Combine rows with raw values; partition large batches so that the map entries of each part fit into cache.

        Only a limited number of rows is partitioned at a time, because the reordered copy takes memory.
        """
        if len(rows) < PARTITION_ROWS:
            self._merge(rows, raw=True, owned=owned)
            return
        sample = hashes_of(rows.keys[sample_rows(len(rows))])
        keys = max(len(self._map), expected_distinct(estimate_cardinality(sample), len(rows)))
        self._reserve(keys * 17 // 16)  # 1/16 more than expected
        parts = self._part_count(keys)
        at_once = max(4 * keys, ROWS_PARTITIONED) if parts > 1 else len(rows)
        for first in range(0, len(rows), at_once):
            part = rows.take(slice(first, first + at_once))
            if parts > 1:
                part = part.reorder(Partition(part.keys, parts * self.world.size))
            self._merge(part, raw=True, owned=owned)

    @staticmethod
    def _part_count(keys: int) -> int:
        size = keys * KEY_BYTES
        return 1 if size < ONE_PART_BYTES else min(1 << (size // CACHE_BYTES).bit_length(), MAX_PARTS)

    @property
    def words_seen(self) -> int:
        """The number of words that `add_words` counted on this rank since rows were last exchanged."""
        return self._map.words_seen

    def add_words(
        self, text: np.ndarray, start: int, stop: int, rule: int, fold: bool, characters: np.ndarray, others: KeyMap
    ) -> None:
        """Add the words of a text as rows, as `KeyMap.words` (for the runtime). Not collective."""
        self._mark_changed()
        self._map.words(text, start, stop, rule, fold, characters, others)

    def _merge(self, rows: RowBatch, raw: bool = False, owned: bool = False) -> None:
        """Combine rows; `raw`: values are not combined yet; `owned`: all keys belong to this rank."""
        if not len(rows):
            return
        self._mark_changed(owned)
        gids = np.empty(min(len(rows), SLICE_ROWS), np.uint32)
        for begin in range(0, len(rows), SLICE_ROWS):  # the key numbers of a slice fit into cache
            self._merge_slice(rows.take(slice(begin, begin + SLICE_ROWS)), gids, raw)

    def _merge_slice(self, rows: RowBatch, gids: np.ndarray, raw: bool) -> None:
        gids = gids[: len(rows)]
        self._map.add(rows.keys, rows.count, gids if self.values else None)
        for name, combined in self._combined.items():
            combined.make_room(len(self._map))
            if raw:
                combined.add(*without_nulls(gids, rows.values[name][""]))
            else:
                combined.merge(gids, rows.values[name])

    def settle(self) -> None:
        """Send every key to the rank that owns its hash, and combine equal keys. Collective."""
        if self.world.all(self._settled):
            return
        self._send_all_to_owners()
        if not self.world.all(self._disk is None):
            with self.world.raise_on_all_ranks():
                self._merge_runs()
        self._settled = True

    def _send_all_to_owners(self) -> None:
        for value in self._combined.values():
            value.agree(self.world)
        if not self.world.all(self._all_owned):
            self._exchange()
        self._all_owned = True

    def keep_within(self, budget: int, folder: Path) -> None:
        """Keep the table within a share of `budget` bytes of memory (for the runtime). Collective.

        If a rank uses more, the table is settled. If it is still too large, the rows of all ranks are written to a
        temporary file in `folder`; `settle` merges them there. Call it before `load`, too.

        Raises
        ------
        AnyrankError
            On all ranks, if a disk is full.
        """
        self._budget, self._folder = budget, folder
        if self.world.all(self.nbytes <= self._limit):
            return
        self._send_all_to_owners()
        if not self.world.all(self.nbytes <= self._limit):
            with self.world.raise_on_all_ranks():
                self._spill()

    def _exchange(self) -> None:
        old, combined = self._map, self._combined
        hashes, slots = old.entries()
        owners = owners_of(hashes, self.world.size)
        self._map, self._combined = KeyMap(self.spread), {name: value.new() for name, value in combined.items()}
        kept = owners == self.world.rank
        self._reserve(int(np.count_nonzero(kept)))
        self._merge(self._rows_at(old, combined, slots[kept]))
        leaving, owners = slots[~kept], owners[~kept]
        # Entries are sorted by their relative position in the hash range of their owner, so each contiguous part of
        # them contains rows for all owners and makes one round.
        size = old.nbytes + sum(value.nbytes for value in combined.values())
        rounds = int(self.world.allreduce(np.array([-(-size // ROUND_BYTES)]), "max")[0])
        for first, last in pairwise(len(leaving) * k // rounds for k in range(rounds + 1)):
            self._exchange_round(old, combined, leaving[first:last], owners[first:last])

    def _exchange_round(
        self, old: KeyMap, combined: Mapping[str, Combine], slots: np.ndarray, owners: np.ndarray
    ) -> None:
        order = np.argsort(owners, kind="stable")
        shuffle = Shuffle(self.world, np.bincount(owners, minlength=self.world.size))
        rows = self._rows_at(old, combined, slots[order]).send(shuffle)
        for first, last in pairwise([0, *np.cumsum(shuffle.received).tolist()]):
            self._map.reserve(len(self._map) + last - first)  # the keys of one source are distinct
            self._merge(rows.take(slice(first, last)))

    def _rows_at(self, old: KeyMap, combined: Mapping[str, Combine], slots: np.ndarray) -> RowBatch:
        """Return the rows in these slots of a map."""
        gids = old.gids_at(slots)
        values = {name: value.take(gids) for name, value in combined.items()}
        return RowBatch(old.keys_at(slots), old.weights_at(slots), values)

    def _sort_by_hash(self, hashed: bool = False) -> Columns:
        """Return the rows in memory sorted by hash; with `hashed`, also the hashes as column KEY."""
        hashes, slots = self._map.entries()
        gids = self._map.gids_at(slots)
        columns = decode(self.keys, self._map.keys_at(slots))
        columns["count"] = self._map.weights_at(slots)
        for name, value in self._combined.items():
            columns |= {name + suffix: array for suffix, array in value.take(gids).items()}
        return {KEY: hashes, **columns} if hashed else columns

    @property
    def columns(self) -> Columns:
        """The rows of this rank of the settled table: keys, `count` and the combined values. Collective.

        All rows are read into memory if they are on disk: see `on_disk`.
        """
        self.settle()
        if self._sorted_columns is None:
            if self._disk is not None:
                runs = [columns_between(run, 0, len(run.keys)) for run in self._disk.runs]
                return {name: concat([columns[name] for columns in runs]) for name in runs[0]}
            self._sorted_columns = self._sort_by_hash()
        return self._sorted_columns

    @property
    def rows(self) -> int:
        """The number of keys on all ranks. Collective."""
        self.settle()
        return self.world.sum(len(self))

    def _load_rows(self, rows: RowBatch) -> None:
        self._reserve(len(self._map) + len(rows))
        self._merge(rows)
