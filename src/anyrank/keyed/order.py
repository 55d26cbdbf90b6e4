"""Sort the rows of columns of any type over all ranks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from anyrank.exchange.shuffle import Shuffle
from anyrank.kernel import Kernel
from anyrank.keyed.row_batch import shuffle_column
from anyrank.keyed.rows import Column, Columns, Text, concat, count, take
from anyrank.keyed.runs import rows_between
from anyrank.keyed.schema import NULLS, join_masks, split_masks, unify_columns
from anyrank.keyed.sort_keys import encode, sortable
from anyrank.keyed.spill import KEY, ScratchFile, SortedInMemory, SortedOnDisk
from anyrank.world import World

ARGSORT = Kernel("sort", "argsort")
#: Each rank samples this number of rows for each rank; the splitters between ranks are chosen among the samples.
SAMPLES_PER_RANK = 32
#: Rows on disk are sorted in ranges of about 1/RANGES of the memory, with SAMPLES_PER_RANGE samples of each rank.
RANGES, SAMPLES_PER_RANGE = 16, 16
#: Text is compared by this number of 8-byte words; texts that are equal so far are then compared as bytes.
_MAX_WORDS = 16


def ordered(world: World, columns: Columns, by: Sequence[str], unique: bool = False) -> Columns:
    """Sort the rows of all ranks and return this rank's part. Collective.

    Rows that are equal in `by` are sorted by the other one-dimensional columns, so that the result does not depend on
    the distribution of the rows.

    Parameters
    ----------
    world : World
        The ranks that hold the rows.
    columns : mapping of str to array or Text
        This rank's rows; all ranks must have the same names and types.
    by : sequence of str
        The columns to sort by: numbers, or Text by its bytes. `-` before a name sorts the column in descending order.
        Masked values come last.
    unique : bool
        True if no two rows are equal in `by`; the other columns are then not compared.

    Returns
    -------
    dict of str to array or Text
        The sorted rows of this rank: parts of about equal size, in the order of the ranks.

    Raises
    ------
    UsageError
        On all ranks, if names, types or axes of columns differ between ranks.

    Notes
    -----
    The splitters are chosen among samples (Frazer and McKellar, Samplesort, J. ACM 17, 1970).

    Examples
    --------
    >>> keyed.ordered(World(), {"x": np.array([2, 1])}, ["x"])
    {'x': array([1, 2])}
    """
    columns = split_masks(unify_columns(world, columns))
    by = _with_masks(columns, by)
    names = [name.lstrip("-") for name in by]
    rest = [name for name, x in columns.items() if name not in names and (isinstance(x, Text) or x.ndim == 1)]
    by = [*by] if unique else [*by, *rest]
    columns = take(columns, _order(columns, by))
    if world.size == 1:
        return join_masks(columns)
    splitters = _splitters(world, columns, by, world.size, SAMPLES_PER_RANK)
    shuffle = Shuffle(world, np.diff(_cuts(columns, by, splitters, world.size)))
    received = {name: shuffle_column(shuffle, x) for name, x in columns.items()}
    return join_masks(take(received, _order(received, by)))


def ordered_on_disk(
    world: World, parts: Callable[[], Iterator[Columns]], by: Sequence[str], rows: int, budget: int, folder: Path
) -> Callable[[], Iterator[Columns]]:
    """Sort the rows of all ranks, which may not fit into memory, and return what yields them in blocks. Collective.

    The rows are divided into ranges of the order and written to a temporary file. Each block is a range; its rows are
    distributed over the ranks as by `ordered`.

    Parameters
    ----------
    world : World
        The ranks that hold the rows.
    parts : callable
        Yields this rank's rows in one part or more, that fit into memory, without collective calls. The first one, if
        it has rows, must be a random sample: the ranges are chosen by it.
    by : sequence of str
        The columns to sort by, as in `ordered`. No two rows are equal in them.
    rows : int
        The number of rows of this rank.
    budget : int
        Bytes of memory, the same on all ranks.
    folder : Path
        The folder for the temporary file.

    Returns
    -------
    callable
        Returns a new iterator over the blocks, whose use is collective.

    Raises
    ------
    AnyrankError
        On all ranks, if a disk is full, or what `parts` raises.
    """
    scratch, runs, left = ScratchFile(folder), list[SortedOnDisk](), parts()
    with world.raise_on_all_ranks():
        first = split_masks(next(left))
    keys, row_bytes = _with_masks(first, by), sum(column.nbytes for column in first.values()) // max(1, count(first))
    most, row_bytes = world.allreduce(np.array([rows, row_bytes], np.int64), "max").tolist()
    ranges = max(1, -(-most * row_bytes * RANGES // budget))
    splitters = _splitters(world, take(first, _order(first, keys)), keys, ranges, SAMPLES_PER_RANGE)
    with world.raise_on_all_ranks():
        for part in chain([first], map(split_masks, left)):
            part = take(part, _order(part, keys))
            numbers = np.repeat(np.arange(ranges, dtype=np.uint64), np.diff(_cuts(part, keys, splitters, ranges)))
            runs.append(scratch.spill(SortedInMemory({KEY: numbers, **part}), gaps=1))
    empty = take(first, slice(0, 0))

    def blocks() -> Iterator[Columns]:
        for number in range(ranges):
            found = [columns for _, columns in rows_between(runs, number, number + 1)] or [empty]
            columns = {name: concat([columns[name] for columns in found]) for name in empty}
            yield ordered(world, join_masks(columns), by, unique=True)

    return blocks


def _with_masks(columns: Columns, by: Sequence[str]) -> list[str]:
    """Return the columns to sort by, with the null mask of each column before it."""
    return [key for name in by for key in (NULLS + name.lstrip("-"), name) if key in columns or key == name]


def _splitters(
    world: World, columns: Columns, by: Sequence[str], parts: int, samples_per_part: int
) -> list[tuple[Any, ...]]:
    """Return rows that divide the rows of all ranks, sorted on each, into parts of about equal size. Collective."""
    n, wanted = count(columns), samples_per_part * parts
    sampled = np.arange(min(n, wanted)) * n // max(1, min(n, wanted))
    mine = _rows(take(columns, sampled), by)
    samples = sorted(row for part in world.comm.allgather([mine(i) for i in range(len(sampled))]) for row in part)
    return [samples[len(samples) * k // parts] for k in range(1, parts)] if samples else []


def _cuts(columns: Columns, by: Sequence[str], splitters: Sequence[tuple[Any, ...]], parts: int) -> list[int]:
    """Return the first row of each part of sorted rows, and the number of rows."""
    n, row = count(columns), _rows(columns, by)
    cuts = [0, *(bisect_left(range(n), splitter, key=row) for splitter in splitters)]
    return [*cuts, *[n] * (parts + 1 - len(cuts))]


def _order(columns: Columns, by: Sequence[str]) -> np.ndarray:
    """Return the row numbers in sorted order."""
    return _lexsort([_codes(columns[name.lstrip("-")], name.startswith("-")) for name in by])


def _lexsort(codes: Sequence[np.ndarray]) -> np.ndarray:
    """Return the stable order of rows; `codes[0]` is the primary key. Sorts by the last key first."""
    if not all(sortable(code.dtype) for code in codes):
        return np.lexsort(codes[::-1])
    order = np.arange(0)
    for k, code in enumerate(reversed(codes)):
        order = order[ARGSORT(code[order])] if k else np.asarray(ARGSORT(np.ascontiguousarray(code)))
    return order


def _codes(column: Column, descending: bool) -> np.ndarray:
    """Return numbers that sort like the elements of the column, or in reverse."""
    codes = text_ranks(column) if isinstance(column, Text) else encode(column) if sortable(column.dtype) else column
    return ~codes if descending else codes


def _rows(columns: Columns, by: Sequence[str]) -> Callable[[int], tuple[Any, ...]]:
    """Return a function that maps a row number to a tuple; tuples sort like the rows."""
    by_name = [(columns[name.lstrip("-")], name.startswith("-")) for name in by]
    codes = [x if isinstance(x, Text) else _codes(x, descending) for x, descending in by_name]
    kinds = [_Descending if descending else bytes for _, descending in by_name]

    def row(i: int) -> tuple[Any, ...]:
        return tuple(
            kind(x[i : i + 1].data.tobytes()) if isinstance(x, Text) else x[i].item()
            for x, kind in zip(codes, kinds, strict=True)
        )

    return row


class _Descending(bytes):
    """Bytes that sort in reverse."""

    def __lt__(self, other: bytes) -> bool:
        return bytes.__gt__(self, other)


def text_ranks(text: Text) -> np.ndarray:
    """Return for each element the number of smaller elements, compared as bytes: int64. Compares 8 bytes at a time."""
    ranks, active = np.zeros(len(text), np.int64), np.arange(len(text))
    for depth in range(_MAX_WORDS):
        left = np.minimum(text.sizes[active] - 8 * depth, 9)
        active = _split_ties(ranks, active, _words_at(text, active, depth), left)
        if not len(active):
            return ranks
    rest = text[active].tolist()
    order = sorted(range(len(rest)), key=lambda i: (ranks[active[i]], rest[i]))
    same = [a and rest[order[a]] == rest[order[a - 1]] for a in range(len(order))]
    _assign_ranks(ranks, active[np.array(order)], np.array(same, bool))
    return ranks


def _words_at(text: Text, rows: np.ndarray, depth: int) -> np.ndarray:
    """Return bytes 8·depth to 8·depth + 7 of each row as a big-endian number, padded with zeros: uint64."""
    starts, size = text.offsets[rows] + 8 * depth, len(text.data)
    ends = text.offsets[rows + 1]
    words = np.zeros(len(rows), np.uint64)
    for k in range(8):
        at = starts + k
        byte = np.where(at < ends, text.data[np.minimum(at, size - 1)] if size else 0, 0)
        words = words << np.uint64(8) | byte.astype(np.uint64)
    return words


def _split_ties(ranks: np.ndarray, active: np.ndarray, words: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Split groups of equal rank by their next words; return the rows that are still equal and have more bytes."""
    order = _lexsort([ranks[active], words, left])
    rows, words, left, before = active[order], words[order], left[order], ranks[active][order]
    same = np.zeros(len(rows), bool)
    same[1:] = (words[1:] == words[:-1]) & (left[1:] == left[:-1]) & (before[1:] == before[:-1])
    _assign_ranks(ranks, rows, same)
    twins = same.copy()
    twins[:-1] |= same[1:]
    return np.asarray(rows[twins & (left == 9)])


def _assign_ranks(ranks: np.ndarray, rows: np.ndarray, same: np.ndarray) -> None:
    """Assign new ranks to sorted rows within each group of equal rank; `same` marks rows equal to the previous row."""
    before = ranks[rows]
    position = np.arange(len(rows))
    heads = np.ones(len(rows), bool)
    heads[1:] = before[1:] != before[:-1]
    first = np.maximum.accumulate(np.where(heads, position, 0))
    own = np.maximum.accumulate(np.where(same, 0, position))
    ranks[rows] = before + own - first


def head(world: World, columns: Columns | Callable[[], Iterator[Columns]], rows: int) -> dict[str, list[Any]]:
    """Return the first `rows` rows of all ranks, on all ranks: a list of Python values per column. Collective.

    Parameters
    ----------
    world : World
        The ranks that hold the rows. The rows of rank 0 are the first.
    columns : mapping of str to array or Text, or callable
        This rank's rows; all ranks must have the same names. Text becomes str. Or what returns an iterator over blocks
        of rows, as for `write_csv`.
    rows : int
        The number of rows.

    Examples
    --------
    >>> keyed.head(World(), {"word": keyed.Text.of(["to", "be"])}, 1)
    {'word': ['to']}
    """
    result: dict[str, list[Any]] = {}
    for block in columns() if callable(columns) else [columns]:
        few = take(block, slice(0, rows))
        local = {name: x.strings() if isinstance(x, Text) else x.tolist() for name, x in few.items()}
        for part in world.comm.allgather(local):
            for name, values in part.items():
                result.setdefault(name, []).extend(values)
        if len(next(iter(result.values()), ())) >= rows:
            break
    return {name: values[:rows] for name, values in result.items()}


def text_codes(world: World, text: Text) -> np.ndarray:
    """Return numbers (uint64) that are equal for equal texts of all ranks, and sort like the texts. Collective.

    The texts of a rank should be distinct, because all of them are sent to other ranks.
    """
    own: Columns = {"text": text, "home": np.full(len(text), world.rank), "row": np.arange(len(text))}
    rows: Any = ordered(world, own, ["text", "home"], unique=True)
    codes = _first_equal(world, rows["text"])
    order = np.argsort(rows["home"], kind="stable")
    shuffle = Shuffle(world, np.bincount(rows["home"], minlength=world.size))
    result = np.empty(len(text), np.uint64)
    result[shuffle(rows["row"][order])] = shuffle(codes[order])
    return result


def _first_equal(world: World, text: Text) -> np.ndarray:
    """Return for each of the sorted texts of all ranks the number of the first one that is equal. Collective."""
    _, heads, groups = np.unique(text_ranks(text), return_index=True, return_inverse=True)
    n, ends = len(text), [text[k : k + 1].data.tobytes() for k in (0, len(text) - 1) if len(text)]
    base, before, last = 0, 0, None
    for rank, (size, texts, head) in enumerate(world.comm.allgather((n, ends, int(heads[-1]) if n else 0))):
        first = before if texts and texts[0] == last else base
        if rank == world.rank:
            codes = np.where(heads > 0, base + heads, first)[groups] if n else np.empty(0, np.int64)
        if size:
            before, last = base + head if head else first, texts[1]
        base += size
    return codes.astype(np.uint64)
