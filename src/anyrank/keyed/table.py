"""Table: rows with a key, combined by it and split over the ranks by it."""

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
from anyrank.keyed.keymap import KeyMap, hashes_of, parts_of
from anyrank.keyed.row_batch import RowBatch
from anyrank.keyed.rows import Column, Columns, Text
from anyrank.keyed.sample import estimate_cardinality, expected_distinct, heavy_hitters, sample_rows
from anyrank.layout import Layout, even_cuts
from anyrank.member import Source, Stored, digest_of
from anyrank.world import World

#: What a rank sends at most in one round of a shuffle, in bytes.
ROUND_BYTES = 1 << 26
#: A batch of at least PARTITION_ROWS rows is first partitioned by hash, into at most MAX_PARTS parts. The map
#: entries of one part, about KEY_BYTES for each key, then fit into CACHE_BYTES. A map below ONE_PART_BYTES is not partitioned.
PARTITION_ROWS, MAX_PARTS, KEY_BYTES, CACHE_BYTES, ONE_PART_BYTES = 1 << 16, 1 << 10, 64, 1 << 19, 1 << 23
#: So many rows travel in a round, are put into parts at once at least, and are combined at a time.
ROUND_ROWS, ROWS_PARTITIONED, SLICE_ROWS = 1 << 23, 1 << 22, 1 << 16
#: From up to so many ranks rows may come one rank's after the other's.
FEW_RANKS = 4
#: The type of a key that is text: bytes of any length.
TEXT = "text"


class Table:
    """Rows with a key of one or several columns, one row for each key: `count` tells how many were added.

    A rank adds rows of any keys, which are combined at once; `settle` brings each key to the rank that owns its hash.
    The settled rows of all ranks, one rank after the other, lie in the order of their hashes, on any number of ranks.

    Parameters
    ----------
    name : str
        Its name in the State.
    world : World
        The ranks that have rows of it.
    keys : mapping of str to dtype
        The columns of the key: `text`, or a dtype of fixed size.
    values : mapping of str to (dtype, str), optional
        What is combined: int64, uint64 or float64, by `sum` (of whole numbers), `min`, `max`, or by `exact` or
        `squares`, whose sums of any numbers are exact.
    description : str, optional
        For people who read a checkpoint.

    Raises
    ------
    UsageError
        Where a column cannot be.

    Examples
    --------
    >>> visits = state.add(Table("visits", state.world, {"user": "int64"}, {"paid": ("float64", "exact")}))
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
            raise UsageError(f"table {self.name}: its columns {names} need a key, and identifiers that differ.")
        if any(kind is not None and kind.hasobject for kind in self.keys.values()):
            raise UsageError(f"table {self.name}: a key's dtype must have a fixed size; use {TEXT!r} for strings.")

    def clear(self) -> None:
        """Remove all rows of this rank."""
        self._map = KeyMap(self.world.size)
        self._combined = {name: value.new() for name, value in self.values.items()}
        self._all_owned = True
        self._mark_changed(owned=True)

    def _mark_changed(self, owned: bool = False) -> None:
        """Rows have changed; `owned`: those that did are this rank's own."""
        self._all_owned &= owned or self.world.size == 1
        self._settled = False
        self._sorted_columns: Columns | None = None

    def __repr__(self) -> str:
        return f"Table({self.name}, keys={[*self.keys]}, values={[*self.values]}, local={len(self)})"

    def __len__(self) -> int:
        """The number of keys that this rank has; they are its own when the table is settled."""
        return len(self._map)

    @property
    def nbytes(self) -> int:
        """The bytes that this rank holds."""
        return self._map.nbytes + sum(value.nbytes for value in self._combined.values())

    def add(
        self, *keys: Column | Sequence[Any], count: np.ndarray | None = None, **values: np.ndarray | Sequence[Any]
    ) -> None:
        """Add rows: a column for each key, how many rows each stands for (1 unless told), and the values.

        Not collective. Masked values take no part. Raises TypeError where columns are missing or their lengths differ.
        """
        self._add_rows(self._make_batch(keys, count, values))

    def gather(
        self, *keys: Column | Sequence[Any], count: np.ndarray | None = None, **values: np.ndarray | Sequence[Any]
    ) -> None:
        """Add rows as `add` does, but where few rows have the same key they travel to its rank at once. Collective.

        The keys that come very often are combined here all the same, so that no rank gets them all.
        """
        rows, world = self._make_batch(keys, count, values), self.world
        sample = hashes_of(rows.keys[sample_rows(len(rows))])
        mine = np.array([estimate_cardinality(sample), len(rows), *rows.message_flags], np.int64)
        total, n, *message_flags = world.allreduce(mine).tolist()
        known = total // world.size
        # This is also true where there are no rows.
        if world.size == 1 or 2 * expected_distinct(known, n // world.size) * world.size <= n:
            self._add_rows(rows)
            return
        own, often = expected_distinct(known, n) // world.size, heavy_hitters(sample, world.size)
        self._reserve(max(len(self._map), own) * 17 // 16)
        rows = rows.with_message_flags(message_flags)  # weights and masks that any rank has, for all send alike
        rounds = -(-int(world.allreduce(np.array([len(rows)]), "max")[0]) // ROUND_ROWS)
        for first, last in pairwise(even_cuts(len(rows), rounds)):
            self._send_to_owners(rows.take(slice(first, last)), own, often)

    def _send_to_owners(self, rows: RowBatch, own: int, often: np.ndarray) -> None:
        """Rows go to the ranks of their keys, each of which has about `own`; those that come often stay. Collective."""
        hashes, world = hashes_of(rows.keys), self.world
        if len(often):
            here = np.isin(hashes, often)
            self._add_rows(rows.take(here))
            rows, hashes = rows.take(~here), hashes[~here]
        each = self._part_count(max(own, len(self._map)))
        places, starts = parts_of(hashes, world.size * each)
        rows = rows.reorder(places).send(Shuffle(world, np.diff(starts[::each])))
        # Of few sources each has many rows in every part, and theirs may come one after the other.
        if world.size <= FEW_RANKS:
            self._merge(rows, raw=True, owned=True)
        else:
            self._add_rows(rows, owned=True)

    def _reserve(self, keys: int) -> None:
        """Have room for so many keys in all, and their values."""
        self._map.reserve(keys)
        for combined in self._combined.values():
            combined.make_room(keys)

    def _make_batch(self, keys: Sequence[Any], count: np.ndarray | None, values: Mapping[str, Any]) -> RowBatch:
        lengths = {len(column) for column in (*keys, *values.values(), *([] if count is None else [count]))}
        if len(keys) != len(self.keys) or values.keys() != self.values.keys() or len(lengths) != 1:
            raise TypeError(f"table {self.name} takes keys {[*self.keys]}, values {[*self.values]}, of one length")
        weights = None if count is None else np.ascontiguousarray(count, np.int64)
        typed = {name: np.asanyarray(values[name], value.dtype) for name, value in self._combined.items()}
        return RowBatch(encode(self.keys, keys), weights, {name: {"": x} for name, x in typed.items()})

    def _add_rows(self, rows: RowBatch, owned: bool = False) -> None:
        """Combine rows that were read: if many, in parts whose keys lie near each other in the map.

        One part after the other fits the cache. Not all rows at once, for what they need meanwhile is memory.
        """
        if len(rows) < PARTITION_ROWS:
            self._merge(rows, raw=True, owned=owned)
            return
        sample = hashes_of(rows.keys[sample_rows(len(rows))])
        keys = max(len(self._map), expected_distinct(estimate_cardinality(sample), len(rows)))
        self._reserve(keys * 17 // 16)
        parts = self._part_count(keys)
        at_once = max(4 * keys, ROWS_PARTITIONED) if parts > 1 else len(rows)
        for first in range(0, len(rows), at_once):
            part = rows.take(slice(first, first + at_once))
            if parts > 1:
                part = part.reorder(parts_of(hashes_of(part.keys), parts * self.world.size)[0])
            self._merge(part, raw=True, owned=owned)

    @staticmethod
    def _part_count(keys: int) -> int:
        size = keys * KEY_BYTES
        return 1 if size < ONE_PART_BYTES else min(1 << (size // CACHE_BYTES).bit_length(), MAX_PARTS)

    @property
    def words_seen(self) -> int:
        """How many words `add_words` has counted here since the rows last moved."""
        return self._map.words_seen

    def add_words(
        self, text: np.ndarray, start: int, stop: int, rule: int, fold: bool, points: np.ndarray, others: KeyMap
    ) -> None:
        """Add the words of a text as rows; see `KeyMap.words`. Not collective."""
        self._mark_changed()
        self._map.words(text, start, stop, rule, fold, points, others)

    def _merge(self, rows: RowBatch, raw: bool = False, owned: bool = False) -> None:
        """Combine rows: values as they were read (`raw`), or combined elsewhere; `owned`: all are this rank's."""
        if not len(rows):
            return
        self._mark_changed(owned)
        gids = np.empty(min(len(rows), SLICE_ROWS), np.uint32)
        for begin in range(0, len(rows), SLICE_ROWS):  # so few that the cache holds their numbers
            self._merge_slice(rows.take(slice(begin, begin + SLICE_ROWS)), gids, raw)

    def _merge_slice(self, rows: RowBatch, gids: np.ndarray, raw: bool) -> None:
        gids = gids[: len(rows)]
        self._map.add(rows.keys, rows.count, gids if self.values else None)
        for name, combined in self._combined.items():
            combined.make_room(len(self._map))
            if not raw:
                combined.merge(gids, rows.values[name])
            elif isinstance(x := rows.values[name][""], np.ma.MaskedArray):
                combined.add(gids[~np.ma.getmaskarray(x)], x.compressed())
            else:
                combined.add(gids, x)

    def settle(self) -> None:
        """Bring every key to the rank that owns its hash, and combine what comes together. Collective."""
        if self.world.all(self._settled):
            return
        for value in self._combined.values():
            value.agree(self.world)
        if not self.world.all(self._all_owned):
            self._exchange()
        self._settled = self._all_owned = True

    def keep_within(self, budget: int) -> None:
        """Settle where a rank holds much of its budget of memory, in bytes. Collective.

        A rank may hold a quarter of it: a table that grows takes three times as much, and a checkpoint takes a copy.
        Raises AnyrankError on all ranks where the settled table is larger.
        """
        if self.world.all(self.nbytes <= budget // 4):
            return
        self.settle()
        with self.world.raise_on_all_ranks():
            if self.nbytes > budget // 4:
                raise AnyrankError(
                    f"table {self.name}: {len(self)} keys take {self.nbytes} bytes on a rank, more than a quarter of "
                    f"the {budget} that it may use for data. Use more ranks, or a larger --memory-limit."
                )

    def _exchange(self) -> None:
        old, combined = self._map, self._combined
        hashes, places = old.entries()
        owners = owners_of(hashes, self.world.size)
        self._map, self._combined = KeyMap(self.world.size), {name: value.new() for name, value in combined.items()}
        mine = owners == self.world.rank
        self._reserve(int(np.count_nonzero(mine)))
        self._merge(self._rows_at(old, combined, places[mine]))
        away, owners = places[~mine], owners[~mine]
        # The entries lie in the order of their places among their owners' hashes: each part of them is a round.
        size = old.nbytes + sum(value.nbytes for value in combined.values())
        rounds = int(self.world.allreduce(np.array([-(-size // ROUND_BYTES)]), "max")[0])
        for first, last in pairwise(len(away) * k // rounds for k in range(rounds + 1)):
            self._exchange_round(old, combined, away[first:last], owners[first:last])

    def _exchange_round(
        self, old: KeyMap, combined: Mapping[str, Combine], places: np.ndarray, owners: np.ndarray
    ) -> None:
        order = np.argsort(owners, kind="stable")
        shuffle = Shuffle(self.world, np.bincount(owners, minlength=self.world.size))
        rows = self._rows_at(old, combined, places[order]).send(shuffle)
        for first, last in pairwise([0, *np.cumsum(shuffle.received).tolist()]):
            self._map.reserve(len(self._map) + last - first)  # a source's keys differ, and lie as ours will
            self._merge(rows.take(slice(first, last)))

    def _rows_at(self, old: KeyMap, combined: Mapping[str, Combine], places: np.ndarray) -> RowBatch:
        """Rows of a map that holds them at these places."""
        gids = old.gids_at(places)
        values = {name: value.take(gids) for name, value in combined.items()}
        return RowBatch(old.keys_at(places), old.weights_at(places), values)

    def _sort_by_hash(self) -> Columns:
        _, places = self._map.entries()
        gids = self._map.gids_at(places)
        columns = decode(self.keys, self._map.keys_at(places))
        columns["count"] = self._map.weights_at(places)
        for name, value in self._combined.items():
            columns |= {name + ending: array for ending, array in value.take(gids).items()}
        return columns

    @property
    def columns(self) -> Columns:
        """This rank's rows of the settled table: keys, `count` and what was combined. Collective."""
        self.settle()
        if self._sorted_columns is None:
            self._sorted_columns = self._sort_by_hash()
        return self._sorted_columns

    @property
    def rows(self) -> int:
        """The number of keys of all ranks. Collective."""
        self.settle()
        return self.world.sum(len(self))

    @property
    def metadata(self) -> dict[str, np.ndarray]:
        """What is true of all values of a column, as one array, the same on all ranks when the table is settled."""
        return {f"{name}_window": value.metadata for name, value in self._combined.items() if len(value.metadata)}

    def describe(self) -> str:
        """See `Member`."""
        combined = {name: value.name for name, value in self.values.items()}
        columns = {name.partition("/")[2]: kind for name, kind in self.kinds().items()}
        return f"table {columns}" + (f", combined by {combined}" if combined else "")

    def kinds(self) -> dict[str, str]:
        """See `Member`: the columns, called TABLE/COLUMN; text is two of them, the bytes of all and their sizes."""
        kinds: dict[str, Any] = {"count": np.int64, **dict.fromkeys(self.metadata, np.int64)}
        for name, kind in self.keys.items():
            kinds |= {name: kind} if kind is not None else {name: np.uint8, f"{name}_size": np.int64}
        for name, value in self._combined.items():
            kinds |= {name + ending: array.dtype for ending, array in value.arrays.items()}
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
        return Field.holding(f"{self.name}/{name}", layout, array, dims, description or self.description, "tables")

    def load(self, source: Source) -> None:
        """See `Member`: each rank takes an even part of the rows, whosever they will be."""
        columns: dict[str, np.ndarray] = {}
        for stored in sorted(self.kinds(), reverse=True):  # the sizes of text before its bytes
            name, shape = stored.partition("/")[2], source.shape(stored)
            cuts = even_cuts(shape[0], self.world.size)
            if self.keys.get(name, self) is None:  # text: the bytes of this rank's rows
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
            name: {ending: columns[name + ending] for ending in value.arrays} for name, value in self._combined.items()
        }
        self._reserve(len(coded))
        self._merge(RowBatch(coded, columns["count"], values))


def owners_of(hashes: np.ndarray, ranks: int) -> np.ndarray:
    """The rank that owns each hash: even parts of all hashes, in their order. uint16, or int64 of many ranks."""
    borders = [-(-(rank << 64) // ranks) for rank in range(1, ranks)]
    owners = np.searchsorted(np.array(borders, np.uint64), hashes, side="right")
    return owners.astype(np.uint16) if ranks <= 1 << 16 else owners
