"""Sorting rows of all ranks by key into one global order: in memory, or through runs on local disks.

Every rank sorts its own rows, exact splitters tell where each rank's even block begins in all sorted runs, the rows
travel there, and are merged. The order is stable: rows of equal keys stay in their global order, which is that of the
ranks, and on a rank that of its rows. So the result does not depend on the number of ranks.

Keys are of one axis, of int32, int64, uint32, uint64, float32, float64 (−0 before 0, all NaNs last) or fixed bytes.
Source: R. Helman, D. Bader and J. JáJá, A randomized parallel sorting algorithm with an experimental study, J. Par.
Distr. Comp. 52 (1998); exact splitters as in anyrank.exchange.splitters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyrank.errors import UsageError
from anyrank.exchange.shuffle import Shuffle
from anyrank.exchange.splitters import cut
from anyrank.kernel import Kernel
from anyrank.keyed.row_batch import shuffle_column
from anyrank.keyed.rows import Column, Columns, concat
from anyrank.keyed.schema import check_types, unify_columns
from anyrank.keyed.sort_keys import SUPPORTED, decode, encode, sortable
from anyrank.keyed.spill import KEY, DiskRun, MemoryRun, ScratchFile
from anyrank.layout import even_cuts
from anyrank.world import World

SORT, ARGSORT = Kernel("sort", "sort"), Kernel("sort", "argsort")
MERGE, MERGE_ORDER = Kernel("sort", "merge"), Kernel("sort", "merge_order")
#: Bytes that a row takes while its order is found, beside its columns, where numbers alone are not sorted in place:
#: the order, and what argsort works with.
_ORDER_BYTES = 40
#: Rows that a rank takes at a time at least, however little memory it has.
_MIN_ROWS = 1024


def sort(
    world: World, keys: NDArray[Any], columns: Mapping[str, Column] | None = None, *, overwrite: bool = False
) -> tuple[NDArray[Any], Columns]:
    """The keys, and columns of as many rows, of all ranks in one order: this rank's even block of it. Collective.

    The rows of a global table are those of rank 0, then those of rank 1, and so on; block r of `even_cuts` of its
    sorted rows comes to rank r. `columns` are arrays of any fixed dtype, or Text. The keys that come in may be
    sorted where they lie where `overwrite`: that spares memory. Raises UsageError for keys of another type.
    """
    columns = unify_columns(world, {KEY: keys, **(columns or {})})
    keys = np.asarray(columns.pop(KEY))
    if not sortable(keys.dtype) or keys.ndim != 1:
        raise UsageError(f"keys of {keys.dtype} and {keys.ndim} axes cannot be sorted: use one axis of {SUPPORTED}.")
    codes = encode(keys)
    positions = even_cuts(world.sum(len(codes)), world.size)
    if columns or codes.dtype.kind == "S":
        run = _sort_pieces([{KEY: codes, **columns}])
        result = _deliver_rows(world, [run], positions)
    else:
        room = np.empty(max(len(codes), -(-positions[-1] // world.size)), codes.dtype)
        own = np.empty_like(codes) if np.shares_memory(codes, keys) and not overwrite else codes
        SORT(codes, room, own)
        codes = own
        result = _deliver_rows(world, [MemoryRun({KEY: codes})], positions, room)
    return decode(np.asarray(result.pop(KEY)), keys.dtype), result


class Sorter:
    """Sorts rows that may be more than memory holds. Making one is collective.

    Rows are added in the order of the input, on each rank its own part of it; then `blocks` gives the sorted rows.
    What does not fit into `budget` bytes (the least of all ranks counts) goes as sorted runs to a file in `folder`,
    which is gone when the Sorter is closed or its process ends.
    """

    def __init__(self, world: World, budget: int, folder: Path):
        self.world, self.scratch = world, ScratchFile(folder)
        self.budget = int(world.allreduce(np.array([budget], np.int64), "min")[0])
        self.runs: list[MemoryRun | DiskRun] = []
        self._pieces: list[Columns] = []
        self._types: dict[str, np.dtype[Any]] = {}
        self._key = np.dtype(np.int64)

    def rows(self, row: int) -> int:
        """How many rows of so many bytes should at most be added at once."""
        return max(_MIN_ROWS, self.budget // (16 * row))

    def add(self, keys: NDArray[Any], columns: Mapping[str, NDArray[Any]]) -> None:
        """Add rows after those that were added before; their arrays now belong to the Sorter. Not collective.

        Columns are of one axis. Raises AnyrankError where the disk is full.
        """
        piece: Columns = {KEY: encode(keys), **columns}
        self._types = {name: np.asarray(column).dtype for name, column in piece.items()}
        self._key = keys.dtype
        rows = len(keys) + sum(len(each[KEY]) for each in self._pieces)
        if self._pieces and rows * self._bytes_per_row(3) > self.budget:
            self._spill()
        self._pieces.append(piece)

    def _bytes_per_row(self, copies: int) -> int:
        """The bytes of memory that a row needs for so many copies of it, of which the C library may keep one that was
        freed, and for finding its order."""
        ordering = 0 if _in_place(self._types) else _ORDER_BYTES
        return copies * sum(dtype.itemsize for dtype in self._types.values()) + ordering

    def _spill(self) -> None:
        self.runs.append(self.scratch.spill(_sort_pieces(self._pieces)))

    def finish(self) -> None:
        """Sort what was added last; then comes `blocks`. Not collective. Raises AnyrankError where the disk is full."""
        if self.runs and self._pieces:
            self._spill()
        elif self._pieces:
            self.runs.append(_sort_pieces(self._pieces))

    def blocks(self, first: int, last: int) -> Iterator[tuple[int, NDArray[Any], dict[str, NDArray[Any]]]]:
        """The rows `first` to `last` of the global order, by and by, as much as memory bears at a time. Collective.

        Yields the global number of this rank's first row, its keys, and its columns. At least one piece was added on
        every rank, which may be empty.
        """
        check_types(self.world, {**self._types, "key": self._key})
        free = self.budget - sum(run.nbytes for run in self.runs)
        mine = max(_MIN_ROWS, free // self._bytes_per_row(6))
        most = self.world.size * int(self.world.allreduce(np.array([mine], np.int64), "min")[0])
        for begin in range(first, last, most):
            size = min(most, last - begin)
            positions = [begin + place for place in even_cuts(size, self.world.size)]
            columns = {n: np.asarray(c) for n, c in _deliver_rows(self.world, self.runs, positions).items()}
            yield positions[self.world.rank], decode(columns.pop(KEY), self._key), columns

    def close(self) -> None:
        """Give the disk's space back."""
        self.scratch.close()
        self.runs = []


def _sort_pieces(pieces: list[Columns]) -> MemoryRun:
    """The rows of all pieces as one sorted run; the pieces are emptied as it grows."""
    names = list(pieces[0])
    keys = _concat_pieces(pieces, KEY)
    if _in_place(dict.fromkeys(names, keys.dtype)):
        SORT(keys)
        columns: Columns = {KEY: keys}
    else:
        order = ARGSORT(keys)
        keys = keys[order]
        columns = {KEY: keys, **{name: _concat_pieces(pieces, name)[order] for name in names if name != KEY}}
    pieces.clear()
    return MemoryRun(columns)


def _in_place(types: Mapping[str, np.dtype[Any]]) -> bool:
    """Whether rows of such columns are numbers alone, which need no order."""
    return len(types) == 1 and types[KEY].kind != "S"


def _concat_pieces(pieces: Sequence[Columns], name: str) -> Any:
    return concat([piece.pop(name) for piece in pieces])


def _deliver_rows(
    world: World, runs: Sequence[MemoryRun | DiskRun], positions: Sequence[int], room: NDArray[Any] | None = None
) -> Columns:
    """The rows between two positions of the global order, this rank's and the next one's. Collective.

    `room` is an array that may take what is received of the keys; then the run's own keys are no longer needed, and
    the result may lie there.
    """
    cuts = cut(world, [run.keys for run in runs], positions)
    if world.size == len(runs) == 1:
        return {name: runs[0].read(name, cuts[0, 0], cuts[0, 1]) for name in _names(runs)}
    counts = np.diff(cuts)
    shuffle, borders = Shuffle(world, counts.sum(0)), _borders(world, counts)

    def receive(name: str, into: NDArray[Any] | None = None) -> Any:
        if len(runs) == 1:
            column = runs[0].read(name, cuts[0, 0], cuts[0, -1])
        else:
            spans = ((run, cuts[r, to], cuts[r, to + 1]) for to in range(world.size) for r, run in enumerate(runs))
            column = concat([run.read(name, a, b) for run, a, b in spans])
        return shuffle_column(shuffle, column) if into is None else shuffle(np.asarray(column), into)

    keys = receive(KEY, room)
    if _in_place(dict.fromkeys(_names(runs), keys.dtype)):
        enough = room is not None and len(runs[0].keys) >= len(keys)
        out = np.asarray(runs[0].read(KEY, 0, len(keys))) if enough else np.empty_like(keys)
        MERGE(keys, borders, out)
        return {KEY: out}
    order = MERGE_ORDER(keys, borders)
    return {KEY: keys[order], **{name: receive(name)[order] for name in _names(runs) if name != KEY}}


def _borders(world: World, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the segments begin and end that come from every rank's runs; `counts` is (runs, ranks)."""
    lengths = Shuffle(world, np.full(world.size, len(counts)))(counts.T.reshape(-1))
    return np.concatenate([[0], np.cumsum(lengths)])


def _names(runs: Sequence[MemoryRun | DiskRun]) -> list[str]:
    return list(runs[0].columns)
