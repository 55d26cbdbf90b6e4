"""Table: rows that are combined by key and distributed over the ranks by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from anyrank.errors import AnyrankError, UsageError
from anyrank.exchange.shuffle import Shuffle
from anyrank.field import Field
from anyrank.keyed.combine import Combine, combine_called
from anyrank.keyed.composite_keys import decode, encode
from anyrank.keyed.keymap import KeyMap, Partition, hashes_of, owners_of
from anyrank.keyed.row_batch import RowBatch
from anyrank.keyed.rows import Column, Columns, Text
from anyrank.keyed.sample import estimate_cardinality, expected_distinct, heavy_hitters, sample_rows
from anyrank.keyed.values import without_nulls
from anyrank.layout import Layout, even_cuts
from anyrank.member import Source, Stored, digest_of
from anyrank.world import World

ROUND_BYTES = 1 << 26  #: Maximum bytes that a rank sends in one round of a shuffle.
#: A batch of at least PARTITION_ROWS rows is first partitioned by hash, into at most MAX_PARTS parts. The
#: map entries of one part (about KEY_BYTES per key) fit into CACHE_BYTES. A map below ONE_PART_BYTES has one part.
PARTITION_ROWS, MAX_PARTS, KEY_BYTES, CACHE_BYTES, ONE_PART_BYTES = 1 << 16, 1 << 10, 64, 1 << 19, 1 << 23
#: Maximum rows of a round, minimum rows partitioned at a time, and rows combined at a time.
ROUND_ROWS, ROWS_PARTITIONED, SLICE_ROWS = 1 << 23, 1 << 22, 1 << 16
FEW_RANKS = 4  #: Up to this number of ranks, received rows are merged without partitioning them again.
TEXT = "text"  #: The type of a text key: bytes of any length.


class Table:
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
        self.name, self.world, self.description = name, world, description
        self.keys = {key: None if kind == TEXT else np.dtype(kind) for key, kind in keys.items()}
        self.values = {value: combine_called(how, np.dtype(kind)) for value, (kind, how) in (values or {}).items()}
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
        self._map = KeyMap(self.world.size)
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
        return len(self._map)

    @property
    def nbytes(self) -> int:
        """Bytes of memory on this rank."""
        return self._map.nbytes + sum(value.nbytes for value in self._combined.values())

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
        for value in self._combined.values():
            value.agree(self.world)
        if not self.world.all(self._all_owned):
            self._exchange()
        self._settled = self._all_owned = True

    def keep_within(self, budget: int) -> None:
        """Settle the table if a rank uses over a quarter of `budget` bytes of memory (for the runtime). Collective.

        A growing table takes three times its size, and a checkpoint a copy. All ranks raise AnyrankError if that fails.
        """
        if self.world.all(self.nbytes <= budget // 4):
            return
        self.settle()
        with self.world.raise_on_all_ranks():
            if self.nbytes > budget // 4:
                raise AnyrankError(
                    f"table {self.name}: {len(self)} keys take {self.nbytes} bytes on a rank; the limit is a quarter "
                    f"of its {budget} bytes for data. Use more ranks, or a larger --memory-limit."
                )

    def _exchange(self) -> None:
        old, combined = self._map, self._combined
        hashes, slots = old.entries()
        owners = owners_of(hashes, self.world.size)
        self._map, self._combined = KeyMap(self.world.size), {name: value.new() for name, value in combined.items()}
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

    def _sort_by_hash(self) -> Columns:
        _, slots = self._map.entries()
        gids = self._map.gids_at(slots)
        columns = decode(self.keys, self._map.keys_at(slots))
        columns["count"] = self._map.weights_at(slots)
        for name, value in self._combined.items():
            columns |= {name + suffix: array for suffix, array in value.take(gids).items()}
        return columns

    @property
    def columns(self) -> Columns:
        """The rows of this rank of the settled table: keys, `count` and the combined values. Collective."""
        self.settle()
        if self._sorted_columns is None:
            self._sorted_columns = self._sort_by_hash()
        return self._sorted_columns

    @property
    def rows(self) -> int:
        """The number of keys on all ranks. Collective."""
        self.settle()
        return self.world.sum(len(self))

    @property
    def metadata(self) -> dict[str, np.ndarray]:
        """The metadata of each exact sum, `NAME_window`; equal on all ranks when the table is settled."""
        return {f"{name}_window": value.metadata for name, value in self._combined.items() if len(value.metadata)}

    def describe(self) -> str:
        """See `Member`."""
        combined = {name: value.name for name, value in self.values.items()}
        columns = {name.partition("/")[2]: kind for name, kind in self.kinds().items()}
        return f"table {columns}" + (f", combined by {combined}" if combined else "")

    def kinds(self) -> dict[str, str]:
        """See `Member`: the columns as TABLE/COLUMN. Text has two columns: the bytes and the sizes of all elements."""
        kinds: dict[str, Any] = {"count": np.int64, **dict.fromkeys(self.metadata, np.int64)}
        for name, kind in self.keys.items():
            kinds |= {name: kind} if kind is not None else {name: np.uint8, f"{name}_size": np.int64}
        for name, value in self._combined.items():
            kinds |= {name + suffix: array.dtype for suffix, array in value.arrays.items()}
        return {f"{self.name}/{name}": np.dtype(kind).str for name, kind in kinds.items()}

    def digest(self) -> int:
        """See `Member`."""
        stored = self.stored()
        return digest_of(stored, {name: column.digest() for name, column in stored.items()})

    def stored(self) -> Stored:
        """See `Member`: the columns of the settled rows of all ranks."""
        fields = []
        for name, column in self.columns.items():
            if isinstance(column, Text):
                fields += [
                    self._field(f"{name}_size", column.sizes, "row", f"bytes of each {name}"),
                    self._field(name, column.data, f"{name}_byte", f"the bytes of each {name}, one after the other"),
                ]
            else:
                fields.append(self._field(name, column, "row", ""))
        for name, whole in self.metadata.items():
            cuts = even_cuts(len(whole), self.world.size)
            mine = whole[cuts[self.world.rank] : cuts[self.world.rank + 1]]
            fields.append(self._field(name, mine, name, "bits of the sums"))
        return {field.name: field for field in fields}

    def _field(self, name: str, array: np.ndarray, axis: str, description: str) -> Field:
        cuts = np.cumsum([0, *self.world.comm.allgather(len(array))]).tolist()
        shape = (cuts[-1], *array.shape[1:])
        layout = Layout(shape, self.world, [cuts, *((0, n) for n in shape[1:])])
        dims = (f"{self.name}_{axis}", *(f"{self.name}_{name}_{k}" for k in range(1, len(shape))))
        return Field.from_array(f"{self.name}/{name}", layout, array, dims, description or self.description, "tables")

    def load(self, source: Source) -> None:
        """See `Member`: each rank loads an even part of the rows; `settle` sends them to their owners later."""
        columns: dict[str, np.ndarray] = {}
        for stored in sorted(self.kinds(), reverse=True):  # the sizes of text before its bytes
            name, shape = stored.partition("/")[2], source.shape(stored)
            cuts = even_cuts(shape[0], self.world.size)
            if name in self.keys and self.keys[name] is None:  # text: the bytes of this rank's rows
                cuts = np.cumsum([0, *self.world.comm.allgather(int(columns[f"{name}_size"].sum()))]).tolist()
            columns[name] = source.read(stored, Layout(shape, self.world, [cuts, *((0, n) for n in shape[1:])]))
            if name in self.metadata:
                columns[name] = np.concatenate(self.world.comm.allgather(columns[name]))
        self.clear()
        texts = {
            key: Text.sized(columns[key], columns[f"{key}_size"]) for key, kind in self.keys.items() if kind is None
        }
        coded = encode(self.keys, [texts[key] if key in texts else columns[key] for key in self.keys])
        for name, value in self._combined.items():
            if len(value.metadata):
                value.metadata = columns[f"{name}_window"]
        values = {
            name: {suffix: columns[name + suffix] for suffix in value.arrays} for name, value in self._combined.items()
        }
        self._reserve(len(coded))
        self._merge(RowBatch(coded, columns["count"], values))
