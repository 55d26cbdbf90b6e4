"""Sort the rows of all ranks by key into one global order: in memory, or with sorted runs on local disks.

Each rank sorts its own rows. Exact splitters cut all sorted runs into even blocks, one per rank. Each rank receives
the rows of its block and merges them. The sort is stable: rows with equal keys keep their global order (by rank, then
by row number on the rank). The result therefore does not depend on the number of ranks.

Keys are one or several one-dimensional columns, ascending or descending, of the types that `sort_keys` encodes (−0
before 0, NaN and NaT last in both directions). They are sorted as one column of codes.

Source: R. Helman, D. Bader and J. JáJá, A randomized parallel sorting algorithm with an experimental study, J. Par.
Distr. Comp. 52 (1998); exact splitters as in anyrank.exchange.splitters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from anyrank.errors import UsageError
from anyrank.exchange.shuffle import Shuffle
from anyrank.exchange.splitters import cut
from anyrank.kernel import Kernel
from anyrank.keyed.row_batch import shuffle_column
from anyrank.keyed.rows import Column, Columns, Text, concat, count
from anyrank.keyed.schema import NULLS, check_types, join_masks, split_masks, unify_columns
from anyrank.keyed.sort_keys import SUPPORTED, decode_keys, encode_keys, sortable
from anyrank.keyed.spill import KEY, ScratchFile, SortedInMemory, SortedOnDisk
from anyrank.layout import even_cuts
from anyrank.world import World

SORT, ARGSORT = Kernel("sort", "sort"), Kernel("sort", "argsort")
#: One key column, or several, of which the first is the primary key; the same for directions.
Keys: TypeAlias = NDArray[Any] | Sequence[NDArray[Any]]
Directions: TypeAlias = bool | Sequence[bool]
#: Prefix for the names of key columns while they are sorted.
_KEYS = "\1"
MERGE, MERGE_ORDER = Kernel("sort", "merge"), Kernel("sort", "merge_order")
#: Bytes per row, beside its columns, for the order and the work arrays of argsort. Keys without other columns are
#: sorted in place and do not need them.
_ORDER_BYTES = 40
#: Minimum number of rows that a rank processes at a time, even if the budget is smaller.
_MIN_ROWS = 1024


def sort(
    world: World,
    keys: Keys,
    columns: Mapping[str, Column] | None = None,
    *,
    descending: Directions = False,
    overwrite: bool = False,
) -> tuple[Any, Columns]:
    """Sort the rows of all ranks by key and return this rank's even block of the sorted rows. Collective.

    The global order of the input is: the rows of rank 0, then those of rank 1, and so on. Rank r receives block r of
    `even_cuts` of the sorted rows.

    Parameters
    ----------
    world : World
        The ranks that hold the rows.
    keys : array, shape (rows,), or sequence of arrays
        This rank's keys; of several, the first is the primary key. NaN, NaT and masked keys come last.
    columns : mapping of str to array or Text, optional
        Further columns of the same rows, of any fixed dtype or Text.
    descending : bool or sequence of bool
        Whether each key is sorted in descending order. Rows with equal keys keep their order.
    overwrite : bool
        Whether `keys` may be sorted in place, which saves memory.

    Returns
    -------
    keys : array or list of arrays
        The sorted keys of this rank's block.
    columns : dict of str to array or Text
        The other columns in the same order.

    Raises
    ------
    UsageError
        On all ranks, if keys cannot be sorted or columns differ between ranks.

    Examples
    --------
    >>> keyed.sort(World(), np.array([3, 1, 2]), {"x": np.array([30, 10, 20])})
    (array([1, 2, 3]), {'x': array([10, 20, 30])})
    """
    named = {f"{_KEYS}{number}": key for number, key in enumerate(_listed(keys))}
    down = dict(zip(named, _directions(descending, len(named)), strict=True))
    columns = split_masks(unify_columns(world, {**named, **(columns or {})}))
    parts = {name: np.asarray(columns.pop(name)) for name in [*columns] if name.lstrip(NULLS).startswith(_KEYS)}
    _check_sortable([*parts.values()])
    directions = [down.get(name, False) for name in parts]  # null masks are ascending
    codes = encode_keys([*parts.values()], directions)
    result = _sort_codes(
        world, codes, columns, overwrite or not any(np.shares_memory(codes, x) for x in parts.values())
    )
    types = [part.dtype for part in parts.values()]
    decoded = decode_keys(np.asarray(result.pop(KEY)), types, directions)
    result = join_masks({**dict(zip(parts, decoded, strict=True)), **result})
    sorted_keys = [result.pop(name) for name in named]
    return (sorted_keys[0] if isinstance(keys, np.ndarray) else sorted_keys), result


def _sort_codes(world: World, codes: NDArray[Any], columns: Columns, own: bool) -> Columns:
    """Sort rows by codes, which may be overwritten if they are our `own`. Collective."""
    positions = even_cuts(world.sum(len(codes)), world.size)
    if columns or codes.dtype.kind == "S":
        return _deliver_rows(world, [_sort_pieces([{KEY: codes, **columns}])], positions)
    room = np.empty(max(len(codes), -(-positions[-1] // world.size)), codes.dtype)
    out = codes if own else np.empty_like(codes)
    SORT(codes, room, out)
    return _deliver_rows(world, [SortedInMemory({KEY: out})], positions, room)


def _listed(keys: Keys) -> list[NDArray[Any]]:
    return [keys] if isinstance(keys, np.ndarray) else [*keys]


def _directions(descending: Directions, count: int) -> list[bool]:
    """Return the direction of each key. Raises UsageError if there are more or fewer than keys."""
    down = [descending] * count if isinstance(descending, bool) else [*map(bool, descending)]
    if not count or len(down) != count:
        raise UsageError(f"{len(down)} directions for {count} keys: give one for each key, and at least one key.")
    return down


def _check_sortable(keys: Sequence[NDArray[Any]]) -> None:
    for key in keys:
        if not sortable(key.dtype) or key.ndim != 1:
            raise UsageError(f"keys of {key.dtype} with {key.ndim} axes cannot be sorted. Use one axis of {SUPPORTED}.")


class Sorter:
    """Sort rows that may not fit into memory. The constructor is collective.

    Each rank adds its part of the rows in the order of the input, calls `finish` and reads sorted rows from `blocks`.

    Parameters
    ----------
    world : World
        The ranks that hold the rows.
    budget : int
        Bytes of memory per rank; the minimum over all ranks is used. Rows that do not fit are written as sorted runs.
    folder : Path
        The folder for the file of sorted runs. The file is removed by `close` or when the process ends.
    descending : bool or sequence of bool
        Whether each key is sorted in descending order.

    Examples
    --------
    >>> sorter = keyed.Sorter(World(), 1 << 20, Path("."))
    >>> sorter.add(np.array([3, 1, 2]), {})
    >>> sorter.finish()
    >>> [keys for _, keys, _ in sorter.blocks(0, 3)]
    [array([1, 2, 3])]
    >>> sorter.close()
    """

    def __init__(self, world: World, budget: int, folder: Path, descending: Directions = False):
        self.world, self.scratch, self.descending = world, ScratchFile(folder), descending
        self.budget = int(world.allreduce(np.array([budget], np.int64), "min")[0])
        self.runs: list[SortedInMemory | SortedOnDisk] = []
        self._pieces: list[Columns] = []
        self._types: dict[str, Any] = {}
        self._keys: list[np.dtype[Any]] = [np.dtype(np.int64)]
        self._single, self._row = True, 8

    def rows(self, row: int) -> int:
        """Return the maximum number of rows to add at once. Not collective.

        Parameters
        ----------
        row : int
            The bytes of a row.
        """
        return max(_MIN_ROWS, self.budget // (16 * row))

    def add(self, keys: Keys, columns: Mapping[str, Column]) -> None:
        """Add rows after those added before. Not collective.

        Parameters
        ----------
        keys : array, shape (rows,), or sequence of arrays
            The keys, which the Sorter may change; of several, the first is the primary key.
        columns : mapping of str to array or Text
            Further columns of the same rows, with one axis, which the Sorter may change.

        Raises
        ------
        AnyrankError
            If the disk is full.
        UsageError
            If keys cannot be sorted.
        """
        listed = _listed(keys)
        _check_sortable(listed)
        self._single, self._keys = isinstance(keys, np.ndarray), [key.dtype for key in listed]
        piece: Columns = {KEY: encode_keys(listed, _directions(self.descending, len(listed))), **columns}
        self._types = {name: None if isinstance(x, Text) else np.asarray(x).dtype for name, x in piece.items()}
        if count(piece):
            self._row = max(self._row, -(-sum(column.nbytes for column in piece.values()) // count(piece)))
        rows = count(piece) + sum(map(count, self._pieces))
        if self._pieces and rows * self._bytes_per_row(3) > self.budget:
            self._spill()
        self._pieces.append(piece)

    def _bytes_per_row(self, copies: int) -> int:
        """Return the bytes of memory per row for a number of copies, and for its order.

        One copy more than in use is counted, because the C library may not return freed memory. Rows with Text have
        the mean size in the piece where it is largest.
        """
        return copies * self._row + (0 if _in_place(self._types) else _ORDER_BYTES)

    def _spill(self) -> None:
        self.runs.append(self.scratch.spill(_sort_pieces(self._pieces)))

    def finish(self) -> None:
        """Sort the rows added last, before `blocks`; raise AnyrankError if the disk is full. Not collective."""
        if self.runs and self._pieces:
            self._spill()
        elif self._pieces:
            self.runs.append(_sort_pieces(self._pieces))

    def blocks(self, first: int, last: int) -> Iterator[tuple[int, Any, Columns]]:
        """Yield rows of the global order, in blocks that fit into memory. Collective.

        Every rank must have called `add` at least once, if need be without rows.

        Parameters
        ----------
        first, last : int
            The first row in the global order, and the row after the last one.

        Yields
        ------
        int, array or list of arrays, dict of str to array or Text
            The global number of this rank's first row in the block, its keys, and its other columns.
        """
        names = ("key", *(f"key {number}" for number in range(2, len(self._keys) + 1)))
        check_types(self.world, self._types | dict(zip(names, self._keys, strict=True)))
        down = _directions(self.descending, len(self._keys))
        free = self.budget - sum(run.nbytes for run in self.runs)
        per_rank = max(_MIN_ROWS, free // self._bytes_per_row(6))
        most = self.world.size * int(self.world.allreduce(np.array([per_rank], np.int64), "min")[0])
        for begin in range(first, last, most):
            size = min(most, last - begin)
            positions = [begin + offset for offset in even_cuts(size, self.world.size)]
            columns = _deliver_rows(self.world, self.runs, positions)
            keys = decode_keys(np.asarray(columns.pop(KEY)), self._keys, down)
            yield positions[self.world.rank], keys[0] if self._single else keys, columns

    def close(self) -> None:
        """Remove the file of sorted runs and free its disk space. Not collective."""
        self.scratch.close()
        self.runs = []


def _sort_pieces(pieces: list[Columns]) -> SortedInMemory:
    """Return the rows of all pieces as one sorted run. Clears each piece early to save memory."""
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
    return SortedInMemory(columns)


def _in_place(types: Mapping[str, Any]) -> bool:
    """Return whether the rows are keys only and numbers, which are sorted in place without an order array."""
    return len(types) == 1 and types[KEY].kind != "S"


def _concat_pieces(pieces: Sequence[Columns], name: str) -> Any:
    return concat([piece.pop(name) for piece in pieces])


def _deliver_rows(
    world: World,
    runs: Sequence[SortedInMemory | SortedOnDisk],
    positions: Sequence[int],
    room: NDArray[Any] | None = None,
) -> Columns:
    """Return the rows from positions[rank] to positions[rank + 1] of the global order. Collective.

    `room` is an optional receive buffer for the keys. With it, the run's own keys may be overwritten by the result.
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
    """Return the boundaries of the segments received from the runs of all ranks; `counts` has shape (runs, ranks)."""
    lengths = Shuffle(world, np.full(world.size, len(counts)))(counts.T.reshape(-1))
    return np.concatenate([[0], np.cumsum(lengths)])


def _names(runs: Sequence[SortedInMemory | SortedOnDisk]) -> list[str]:
    return list(runs[0].columns)
