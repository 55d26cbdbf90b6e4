"""Table: rows with a key, combined by it and split over the ranks by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from anyrank.errors import AnyrankError, UsageError
from anyrank.exchange.shuffle import Shuffle
from anyrank.field import Field
from anyrank.keyed.combine import Combine, combine_called
from anyrank.keyed.keymap import KeyMap
from anyrank.keyed.rows import Column, Columns, Text
from anyrank.layout import Layout, even_cuts
from anyrank.world import World

#: What a rank sends at most in one round of a shuffle, in bytes.
ROUND = 1 << 26
#: The type of a key that is text: bytes of any length.
TEXT = "text"


class Table:
    """Rows with a key of one or several columns, one row for each key: `count` tells how many were added.

    A rank adds rows of any keys, which are combined at once; `settle` brings each key to the rank that owns its hash.
    The settled rows of all ranks, one rank after the other, lie in the order of their hashes, on any number of ranks.
    Made by `State.table`. Keys are `text`, or of a dtype of fixed size; values are combined as their kind says.
    """

    def __init__(
        self,
        name: str,
        world: World,
        keys: Mapping[str, DTypeLike],
        values: Mapping[str, tuple[DTypeLike, str]],
        *,
        description: str = "",
    ):
        self.name, self.world, self.description = name, world, description
        self.keys = {key: None if kind == TEXT else np.dtype(kind) for key, kind in keys.items()}
        self.values = {value: combine_called(how, np.dtype(kind)) for value, (kind, how) in values.items()}
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
        self._touch(home=True)

    def _touch(self, home: bool = False) -> None:
        """Rows have changed; `home`: they are their owners'."""
        self._home, self._sorted_columns = home, None

    _sorted_columns: Columns | None

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
        lengths = {len(column) for column in (*keys, *values.values(), *([] if count is None else [count]))}
        if len(keys) != len(self.keys) or values.keys() != self.values.keys() or len(lengths) != 1:
            raise TypeError(f"table {self.name} takes keys {[*self.keys]}, values {[*self.values]}, of one length")
        coded = self.encode(keys)
        parts = {name: {"": np.ma.asanyarray(x)} for name, x in values.items()}
        self._merge(coded, count, parts, first=True)

    @property
    def words_seen(self) -> int:
        """How many words `add_words` has counted here since the rows last moved."""
        return self._map.words_seen

    def add_words(
        self, text: np.ndarray, start: int, stop: int, rule: int, fold: bool, points: np.ndarray, others: KeyMap
    ) -> None:
        """Add the words of a text as rows; see `KeyMap.words`. Not collective."""
        self._touch()
        self._map.words(text, start, stop, rule, fold, points, others)

    def _merge(
        self, coded: Text | np.ndarray, count: np.ndarray | None, parts: Mapping[str, Any], first: bool = False
    ) -> None:
        """Combine rows: values as they were read (`first`), or as they were combined elsewhere."""
        if not len(coded):
            return
        self._touch()
        gids = np.empty(len(coded) if self.values else 0, np.uint32)
        weights = None if count is None else np.ascontiguousarray(count, np.int64)
        self._map.add(coded, weights, gids if self.values else None)
        for name, combined in self._combined.items():
            combined.make_room(len(self._map))
            if not first:
                combined.absorb(gids, parts[name])
            elif isinstance(x := parts[name][""], np.ma.MaskedArray):
                combined.add(gids[~np.ma.getmaskarray(x)], x.compressed())
            else:
                combined.add(gids, x)

    def encode(self, keys: Sequence[Column | Sequence[Any]]) -> Text | np.ndarray:
        """Keys as bytes: a Text where one of them is text, else the rows of a uint8 matrix. Not collective."""
        columns = [self._as_key(kind, column) for kind, column in zip(self.keys.values(), keys, strict=True)]
        if len(columns) == 1:
            return columns[0]
        texts = [column for column in columns if isinstance(column, Text)]
        fixed = [column for column in columns if isinstance(column, np.ndarray)]
        # The lengths of all texts but the last tell where each ends.
        fixed += [text.sizes[:, None].view(np.uint8) for text in texts[:-1]]
        head = np.concatenate(fixed, axis=1) if fixed else np.empty((len(columns[0]), 0), np.uint8)
        return _joined(head, texts) if texts else head

    def _as_key(self, kind: np.dtype[Any] | None, column: Column | Sequence[Any]) -> Column:
        if kind is None:
            return column if isinstance(column, Text) else Text.of(column)
        array = np.ascontiguousarray(column, kind)
        return array.reshape(len(array), 1).view(np.uint8).reshape(len(array), kind.itemsize)

    def decode(self, coded: Text) -> Columns:
        """The columns of keys that `encode` made."""
        kinds = self.keys
        texts = [name for name, kind in kinds.items() if kind is None]
        at, found = coded.offsets[:-1].copy(), Columns()
        for name, kind in kinds.items():
            if kind is not None:
                found[name] = _bytes_at(coded.data, at, kind.itemsize).view(kind).reshape(-1)
                at += kind.itemsize
        sizes = {}
        for name in texts[:-1]:
            sizes[name] = _bytes_at(coded.data, at, 8).view(np.int64).reshape(-1)
            at += 8
        for name in texts:
            ends = at + sizes[name] if name in sizes else coded.offsets[1:]
            found[name] = _slices(coded.data, at, ends) if len(kinds) > 1 else coded
            at = ends
        return {name: found[name] for name in kinds}

    def settle(self) -> None:
        """Bring every key to the rank that owns its hash, and combine what comes together. Collective."""
        if self.world.every(self._home):
            return
        for value in self._combined.values():
            value.agree(self.world)
        if self.world.size > 1:
            self._exchange()
        self._home = True

    def keep_within(self, budget: int) -> None:
        """Settle where a rank holds much of its budget of memory, in bytes. Collective.

        A rank may hold a quarter of it: a table that grows takes three times as much, and a checkpoint takes a copy.
        Raises AnyrankError on all ranks where the settled table is larger.
        """
        if self.world.every(self.nbytes <= budget // 4):
            return
        self.settle()
        error = None
        if self.nbytes > budget // 4:
            error = AnyrankError(
                f"table {self.name}: {len(self)} keys take {self.nbytes} bytes on a rank, more than a quarter of the "
                f"{budget} that it may use for data. Use more ranks, or a larger --memory-limit."
            )
        self.world.agree(error)

    def _exchange(self) -> None:
        old, combined = self._map, self._combined
        hashes, places = old.entries()
        owners = owners_of(hashes, self.world.size)
        self._map, self._combined = KeyMap(self.world.size), {name: value.new() for name, value in combined.items()}
        mine = owners == self.world.rank
        self._merge_from(old, combined, places[mine])
        away, owners = places[~mine], owners[~mine]
        # The entries lie in the order of their places among their owners' hashes: each part of them is a round.
        size = old.nbytes + sum(value.nbytes for value in combined.values())
        rounds = int(self.world.allreduce(np.array([-(-size // ROUND)]), "max")[0])
        for first, last in pairwise(len(away) * k // rounds for k in range(rounds + 1)):
            self._round(old, combined, away[first:last], owners[first:last])

    def _round(self, old: KeyMap, combined: Mapping[str, Combine], places: np.ndarray, owners: np.ndarray) -> None:
        places = places[np.argsort(owners, kind="stable")]
        shuffle = Shuffle(self.world, np.bincount(owners, minlength=self.world.size))
        gids = old.gids_at(places)
        coded, count = shuffle.text(old.keys_at(places)), shuffle(old.weights_at(places))
        parts = {}
        for name, value in combined.items():
            parts[name] = {ending: shuffle(array) for ending, array in value.take(gids).items()}
        ends = np.cumsum(shuffle.received).tolist()
        for first, last in pairwise([0, *ends]):  # a source's keys differ, and lie as ours will
            self._map.reserve(len(self._map) + last - first)
            part = {name: {e: x[first:last] for e, x in arrays.items()} for name, arrays in parts.items()}
            self._merge(coded[first:last], count[first:last], part)

    def _merge_from(self, old: KeyMap, combined: Mapping[str, Combine], places: np.ndarray) -> None:
        gids = old.gids_at(places)
        self._map.reserve(len(places))
        parts = {name: value.take(gids) for name, value in combined.items()}
        self._merge(old.keys_at(places), old.weights_at(places), parts)

    def _sorted(self) -> Columns:
        _, places = self._map.entries()
        gids = self._map.gids_at(places)
        found = self.decode(self._map.keys_at(places))
        found["count"] = self._map.weights_at(places)
        for name, value in self._combined.items():
            found |= {name + ending: array for ending, array in value.take(gids).items()}
        return found

    @property
    def columns(self) -> Columns:
        """This rank's rows of the settled table: keys, `count` and what was combined. Collective."""
        self.settle()
        if self._sorted_columns is None:
            self._sorted_columns = self._sorted()
        return self._sorted_columns

    @property
    def rows(self) -> int:
        """The number of keys of all ranks. Collective."""
        self.settle()
        return self.world.total(len(self))

    @property
    def facts(self) -> dict[str, np.ndarray]:
        """What is true of all values of a column, as one array, the same on all ranks when the table is settled."""
        return {f"{name}_window": value.facts for name, value in self._combined.items() if len(value.facts)}

    def stored_kinds(self) -> dict[str, str]:
        """The dtype of each column of a checkpoint, by its name."""
        kinds: dict[str, Any] = {"count": np.int64, **dict.fromkeys(self.facts, np.int64)}
        for name, kind in self.keys.items():
            kinds |= {name: kind} if kind is not None else {name: np.uint8, f"{name}_size": np.int64}
        for name, value in self._combined.items():
            kinds |= {name + ending: array.dtype for ending, array in value.arrays.items()}
        return {name: np.dtype(kind).str for name, kind in kinds.items()}

    def fields(self) -> Iterator[Field]:
        """The columns as Fields of the settled rows of all ranks, called TABLE/COLUMN. Collective.

        Text is two of them: the bytes of all elements, and their sizes.
        """
        for name, column in self.columns.items():
            if isinstance(column, Text):
                yield self._field(f"{name}_size", column.sizes, "row", f"bytes of each {name}")
                yield self._field(name, column.data, f"{name}_byte", f"the bytes of each {name}, one after the other")
            else:
                yield self._field(name, column, "row", "")
        for name, whole in self.facts.items():
            cuts = even_cuts(len(whole), self.world.size)
            yield self._field(name, whole[cuts[self.world.rank] : cuts[self.world.rank + 1]], name, "bits of the sums")

    def _field(self, name: str, array: np.ndarray, axis: str, description: str) -> Field:
        cuts = np.cumsum([0, *self.world.comm.allgather(len(array))]).tolist()
        shape = (cuts[-1], *array.shape[1:])
        layout = Layout(shape, self.world, [cuts, *((0, n) for n in shape[1:])])
        dims = (f"{self.name}_{axis}", *(f"{self.name}_{name}_{k}" for k in range(1, len(shape))))
        return Field.holding(f"{self.name}/{name}", layout, array, dims, description or self.description)

    def load(self, columns: Mapping[str, np.ndarray]) -> None:
        """Take rows from a checkpoint, as `fields` names their columns: any rows on any rank. Not collective."""
        self.clear()
        texts = {
            key: Text.sized(columns[key], columns[f"{key}_size"]) for key, kind in self.keys.items() if kind is None
        }
        coded = self.encode([texts[key] if key in texts else columns[key] for key in self.keys])
        for name, value in self._combined.items():
            if len(value.facts):
                value.facts = columns[f"{name}_window"]
        parts = {
            name: {ending: columns[name + ending] for ending in value.arrays} for name, value in self._combined.items()
        }
        self._map.reserve(len(coded))
        self._merge(coded, columns["count"], parts)


def owners_of(hashes: np.ndarray, ranks: int) -> np.ndarray:
    """The rank that owns each hash: even parts of all hashes, in their order. uint16, or int64 of many ranks."""
    borders = [-(-(rank << 64) // ranks) for rank in range(1, ranks)]
    found = np.searchsorted(np.array(borders, np.uint64), hashes, side="right")
    return found.astype(np.uint16) if ranks <= 1 << 16 else found


def _joined(head: np.ndarray, texts: Sequence[Text]) -> Text:
    """The rows of a matrix of bytes, each followed by its element of every text."""
    wide = head.shape[1]
    coded = Text.sized(np.empty(0, np.uint8), wide + np.sum([text.sizes for text in texts], axis=0, dtype=np.int64))
    coded.data = np.empty(int(coded.offsets[-1]), np.uint8)
    at = coded.offsets[:-1]
    coded.data[at[:, None] + np.arange(wide)] = head
    at = at + wide
    for text in texts:
        coded.data[np.repeat(at - text.offsets[:-1], text.sizes) + np.arange(len(text.data))] = text.data
        at = at + text.sizes
    return coded


def _bytes_at(data: np.ndarray, at: np.ndarray, size: int) -> np.ndarray:
    """So many bytes from each place on: a uint8 matrix, contiguous."""
    return np.ascontiguousarray(data[at[:, None] + np.arange(size)])


def _slices(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Text:
    """The bytes between each pair of places."""
    found = Text.sized(np.empty(0, np.uint8), ends - starts)
    found.data = data[np.repeat(starts - found.offsets[:-1], found.sizes) + np.arange(int(found.offsets[-1]))]
    return found
