"""The rows of a Table in checkpoints and on disk: what `Member` needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from mpi4py import MPI

from anyrank.exchange.shuffle import Shuffle
from anyrank.field import Field
from anyrank.keyed.combine import Combine
from anyrank.keyed.composite_keys import decode, encode
from anyrank.keyed.keymap import KeyMap, hash_range, hashes_of, owners_of
from anyrank.keyed.row_batch import RowBatch
from anyrank.keyed.rows import Columns, Text, concat
from anyrank.keyed.runs import DiskText, Runs, rows_between
from anyrank.keyed.spill import KEY, ScratchFile, SortedInMemory, SortedOnDisk
from anyrank.layout import Layout, even_cuts
from anyrank.member import Source, Stored, digest_of
from anyrank.numerics.strided import row_slices
from anyrank.storage.on_disk import DiskArray, FieldOnDisk
from anyrank.world import World

T = TypeVar("T", bound="StoredTable")
#: Rows in memory take at most 1/TABLE_SHARE of a budget: a table takes three times its size when it grows or is sent.
TABLE_SHARE = 8


class StoredTable:
    """The part of a Table that writes rows to checkpoints and to temporary files, and reads them."""

    keys: dict[str, np.dtype[Any] | None]
    values: dict[str, Combine]
    _combined: dict[str, Combine]
    _declared: tuple[Any, Any]
    _map: KeyMap
    _settled: bool
    _disk: Runs | None = None

    def __init__(self, name: str, world: World, description: str):
        self.name, self.world, self.description = name, world, description
        #: The number of equal parts of the hashes of all keys, of which the rows are in one.
        self.spread = world.size
        #: The bytes of memory for data, 0 for any number, and the folder for rows that do not fit.
        self._budget, self._folder = 0, Path()

    @property
    def _limit(self) -> int:
        """The bytes that rows may take in memory."""
        return self._budget // TABLE_SHARE

    def clear(self) -> None:
        """Remove all rows of this rank. Not collective."""
        raise NotImplementedError

    def settle(self) -> None:
        """Send every key to the rank that owns its hash, and combine equal keys. Collective."""
        raise NotImplementedError

    @property
    def columns(self) -> Columns:
        """The rows of this rank of the settled table: keys, `count` and the combined values. Collective."""
        raise NotImplementedError

    def keep_within(self, budget: int, folder: Path) -> None:
        """See `Table`."""
        raise NotImplementedError

    def _load_rows(self, rows: RowBatch) -> None:
        raise NotImplementedError

    def _sort_by_hash(self, hashed: bool = False) -> Columns:
        raise NotImplementedError

    @property
    def on_disk(self) -> bool:
        """Whether rows of any rank are in a temporary file: then `part` reads some of them. Collective."""
        return not self.world.all(self._disk is None)

    @property
    def bytes_on_disk(self) -> int:
        """Bytes of the temporary file of this rank."""
        return 0 if self._disk is None else self._disk.size

    def _spill(self) -> None:
        """Write the rows in memory, which this rank owns, to disk."""
        if self._disk is None:
            self._disk = Runs(self._folder)
        self._disk.spill(self._sort_by_hash(hashed=True), self.metadata)
        self._map, self._combined = KeyMap(self.spread), {name: x.new() for name, x in self._combined.items()}
        self._settled = False

    def _merge_runs(self) -> None:
        """Write the rows to another file, in parts that are sorted by hash, so that each key has one row."""
        if len(self._map) or self._disk is None:
            self._spill()
        if self._disk is None or self._disk.is_merged(self.metadata):
            return
        before, self._disk = self._disk, Runs(self._folder)
        parts = max(1, -(-before.size // self._limit))
        for number in range(parts):
            part = self._part_of(before.runs, before.metadata, number, parts)
            self._disk.spill(part._sort_by_hash(hashed=True), self.metadata)
        self._disk.merged = True

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
        self.settle()
        fields = []
        for name, column in (self.columns if self._disk is None else self._disk.arrays()).items():
            if isinstance(column, Text | DiskText):
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

    def _field(self, name: str, array: Any, axis: str, description: str) -> Field:
        cuts = np.cumsum([0, *self.world.comm.allgather(len(array))]).tolist()
        shape = (cuts[-1], *array.shape[1:])
        layout = Layout(shape, self.world, [cuts, *((0, n) for n in shape[1:])])
        dims = (f"{self.name}_{axis}", *(f"{self.name}_{name}_{k}" for k in range(1, len(shape))))
        kind = FieldOnDisk if isinstance(array, DiskArray) else Field
        return kind.from_array(f"{self.name}/{name}", layout, array, dims, description or self.description, "tables")

    def load(self, source: Source) -> None:
        """See `Member`: each rank loads an even part of the rows; `settle` sends them to their owners later.

        Rows that do not fit into memory are copied to a temporary file, and then loaded from it in blocks.
        """
        bytes_ = sum(prod(source.shape(name)) * np.dtype(kind).itemsize for name, kind in self.kinds().items())
        blocks = -(-4 * bytes_ // (self._limit * self.world.size)) if self._limit else 1
        scratch = ScratchFile(self._folder) if blocks > 1 else None
        columns = self._read_columns(source, scratch)
        self.clear()
        for name, value in self._combined.items():
            if len(value.metadata):
                value.metadata = columns[f"{name}_window"]
        at = dict.fromkeys(self.keys, 0)
        for first, last in pairwise(even_cuts(len(columns["count"]), max(blocks, 1))):
            block = {name: column[first:last] for name, column in columns.items() if name not in self.metadata}
            for key in (key for key, kind in self.keys.items() if kind is None):
                sizes = np.asarray(block[f"{key}_size"])
                begin, at[key] = at[key], at[key] + int(sizes.sum())
                block[key] = Text.sized(columns[key][begin : at[key]], sizes)
            if scratch is None:
                self._load_rows(self._batch_of(block))
            else:
                self._spill_block(self._batch_of(block))

    def _spill_block(self, rows: RowBatch) -> None:
        """Write rows of a checkpoint, whose keys are distinct, to disk at their owners. Collective.

        The rows are sorted by hash, so that those of a block have similar hashes. A hash table would take a time
        proportional to the square of their number.
        """
        owners = owners_of(hashes_of(rows.keys), self.world.size)
        shuffle = Shuffle(self.world, np.bincount(owners, minlength=self.world.size))
        rows = rows.take(np.argsort(owners, kind="stable")).send(shuffle)
        hashes = hashes_of(rows.keys)
        order = np.argsort(hashes, kind="stable")
        rows = rows.take(order)
        keys = rows.keys
        if isinstance(keys, np.ndarray):
            keys = Text.sized(keys.reshape(-1), np.full(len(keys), keys.shape[1], np.int64))
        columns: Columns = {KEY: hashes[order], **decode(self.keys, keys), "count": np.asarray(rows.count)}
        for name, parts in rows.values.items():
            columns |= {name + suffix: array for suffix, array in parts.items()}
        with self.world.raise_on_all_ranks():
            if self._disk is None:
                self._disk = Runs(self._folder)
            self._disk.spill(columns, self.metadata)
        self._settled = False

    def _read_columns(self, source: Source, scratch: ScratchFile | None) -> dict[str, Any]:
        columns: dict[str, Any] = {}
        for stored, kind in sorted(self.kinds().items(), reverse=True):  # the sizes of text before its bytes
            name, shape = stored.partition("/")[2], source.shape(stored)
            cuts = even_cuts(shape[0], self.world.size)
            if name in self.keys and self.keys[name] is None:  # text: the bytes of this rank's rows
                sizes = columns[f"{name}_size"]
                own = sum(int(sizes[rows].sum()) for rows in row_slices(sizes))
                cuts = np.cumsum([0, *self.world.comm.allgather(own)]).tolist()
            layout = Layout(shape, self.world, [cuts, *((0, n) for n in shape[1:])])
            if name in self.metadata:
                columns[name] = np.concatenate(self.world.comm.allgather(source.read(stored, layout)))
            elif scratch is None:
                columns[name] = source.read(stored, layout)
            else:
                array = scratch.array(layout.local_shape, np.dtype(kind))
                field = FieldOnDisk.from_array(stored, layout, array, (), "", "tables")
                source.fill(field)
                columns[name] = field.local
        return columns

    def part(self: T, number: int, parts: int) -> T:
        """Return a Table of one rank with a part of the settled rows of this rank, in their order. Not collective.

        Parameters
        ----------
        number, parts : int
            The number of the part, and the number of parts of about equal size. All ranks have the same.
        """
        if self._disk is not None:
            return self._part_of(self._disk.runs, self._disk.metadata, number, parts)
        rows = SortedInMemory(self._sort_by_hash(hashed=True))  # `columns` is collective
        return self._part_of([rows], [self.metadata], number, parts)

    def _part_of(
        self: T,
        runs: Sequence[SortedInMemory | SortedOnDisk],
        metadata: Sequence[Mapping[str, np.ndarray]],
        number: int,
        parts: int,
    ) -> T:
        part, rank, ranks = self.empty_part(parts), self.world.rank, self.world.size
        within = rows_between(runs, *hash_range(rank * parts + number, ranks * parts))
        found = [part._converted(columns, metadata[run]) for run, columns in within]
        if found:
            columns = {name: concat([columns.pop(name) for columns in found]) for name in [*found[0]]}
            part._load_rows(part._batch_of(columns))
        return part

    def empty_part(self: T, parts: int) -> T:
        """Return a Table of one rank for one of a number of parts, without rows. Not collective."""
        kind: Any = type(self)
        part: T = kind(self.name, one_rank(), *self._declared)
        part.spread = self.world.size * parts
        part.clear()
        for name, value in part._combined.items():
            if len(value.metadata):
                value.metadata = self._combined[name].metadata
        return part

    def _converted(self, columns: Columns, metadata: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return columns with values that had other metadata when they were written."""
        for name, value in self._combined.items():
            if f"{name}_window" in metadata:
                own = {suffix: np.asarray(columns[name + suffix]) for suffix in value.arrays}
                own = value.convert(own, metadata[f"{name}_window"])
                columns |= {name + suffix: array for suffix, array in own.items()}
        return columns

    def _batch_of(self, columns: Mapping[str, Any]) -> RowBatch:
        """Return rows with columns as in a checkpoint."""
        values = {
            name: {suffix: columns[name + suffix] for suffix in value.arrays} for name, value in self._combined.items()
        }
        return RowBatch(encode(self.keys, [columns[key] for key in self.keys]), columns["count"], values)


@cache
def one_rank() -> World:
    """Return a World of this rank only."""
    return World(MPI.COMM_SELF)
