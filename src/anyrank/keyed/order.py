"""Order: the rows of columns of any kind, sorted over all ranks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from anyrank.exchange.shuffle import Shuffle
from anyrank.kernel import Kernel
from anyrank.keyed.row_batch import shuffle_column
from anyrank.keyed.rows import Column, Columns, Text, count, take
from anyrank.keyed.schema import NULLS, join_masks, split_masks, unify_columns
from anyrank.keyed.sort_keys import encode, sortable
from anyrank.world import World

ARGSORT = Kernel("sort", "argsort")
#: Rows of each rank among which the borders between ranks are chosen, for each rank.
SAMPLES_PER_RANK = 32
#: Text is compared by so many words of eight bytes; what is alike until then, byte by byte.
_MAX_WORDS = 16


def ordered(world: World, columns: Columns, by: Sequence[str], unique: bool = False) -> Columns:
    """This rank's part of the rows of all ranks, sorted by the columns `by`: numbers, or Text by its bytes. Collective.

    `-` before a name of numbers sorts from the largest to the smallest; masked ones come last. Columns and masks that
    one rank has, all must have: see `unify_columns`. Rows that are alike in `by` are sorted by the
    other columns of one axis, so that the whole does not depend on who had which row; `unique` says that there are no
    such rows. Parts are about equal: their
    borders are chosen among samples (Frazer and McKellar, Samplesort, J. ACM 17, 1970).
    """
    columns = split_masks(unify_columns(world, columns))
    by = [one for name in by for one in (NULLS + name.lstrip("-"), name) if one in columns or one == name]
    names = [name.lstrip("-") for name in by]
    rest = [name for name, x in columns.items() if name not in names and (isinstance(x, Text) or x.ndim == 1)]
    by = [*by] if unique else [*by, *rest]
    columns = take(columns, _order(columns, by))
    if world.size == 1:
        return join_masks(columns)
    n = count(columns)
    places = np.arange(min(n, SAMPLES_PER_RANK * world.size)) * n // max(1, min(n, SAMPLES_PER_RANK * world.size))
    mine = _rows(take(columns, places), by)
    samples = sorted(row for part in world.comm.allgather([mine(i) for i in range(len(places))]) for row in part)
    borders = [samples[len(samples) * k // world.size] for k in range(1, world.size)] if samples else []
    row = _rows(columns, by)
    cuts = [0, *(bisect_left(range(n), border, key=row) for border in borders)]
    shuffle = Shuffle(world, np.diff([*cuts, *[n] * (world.size + 1 - len(cuts))]))
    received = {name: shuffle_column(shuffle, x) for name, x in columns.items()}
    return join_masks(take(received, _order(received, by)))


def _order(columns: Columns, by: Sequence[str]) -> np.ndarray:
    """The rows' numbers in their order."""
    return _lexsort([_codes(columns[name.lstrip("-")], name.startswith("-")) for name in by])


def _lexsort(codes: Sequence[np.ndarray]) -> np.ndarray:
    """The stable order of rows by numbers, the first ones before all: by the last ones first."""
    if not all(sortable(code.dtype) for code in codes):
        return np.lexsort(codes[::-1])
    order = np.arange(0)
    for k, code in enumerate(reversed(codes)):
        order = order[ARGSORT(code[order])] if k else np.asarray(ARGSORT(np.ascontiguousarray(code)))
    return order


def _codes(column: Column, descending: bool) -> np.ndarray:
    """Numbers in the order of the column's elements, or against it."""
    codes = text_ranks(column) if isinstance(column, Text) else encode(column)
    return ~codes if descending else codes


def _rows(columns: Columns, by: Sequence[str]) -> Callable[[int], tuple[Any, ...]]:
    """Row i as a tuple whose order is that of rows."""
    texts = {name: x for name, x in columns.items() if isinstance(x, Text)}
    codes = {name: _codes(columns[name.lstrip("-")], name.startswith("-")) for name in by if name not in texts}

    def row(i: int) -> tuple[Any, ...]:
        return tuple(texts[name][i : i + 1].data.tobytes() if name in texts else codes[name][i].item() for name in by)

    return row


def text_ranks(text: Text) -> np.ndarray:
    """For each element how many are smaller, as bytes: int64. From eight bytes to the next, where there are equals."""
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
    """Bytes 8·depth … of each element as a number, zeros after its end: uint64."""
    starts, size = text.offsets[rows] + 8 * depth, len(text.data)
    ends = text.offsets[rows + 1]
    words = np.zeros(len(rows), np.uint64)
    for k in range(8):
        at = starts + k
        byte = np.where(at < ends, text.data[np.minimum(at, size - 1)] if size else 0, 0)
        words = words << np.uint64(8) | byte.astype(np.uint64)
    return words


def _split_ties(ranks: np.ndarray, active: np.ndarray, words: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Tell rows of one rank apart by their next words; those that still are alike and go on."""
    order = _lexsort([ranks[active], words, left])
    rows, words, left, before = active[order], words[order], left[order], ranks[active][order]
    same = np.zeros(len(rows), bool)
    same[1:] = (words[1:] == words[:-1]) & (left[1:] == left[:-1]) & (before[1:] == before[:-1])
    _assign_ranks(ranks, rows, same)
    twins = same.copy()
    twins[:-1] |= same[1:]
    return np.asarray(rows[twins & (left == 9)])


def _assign_ranks(ranks: np.ndarray, rows: np.ndarray, same: np.ndarray) -> None:
    """Give sorted rows the ranks of their places within what was one rank; `same` is as the one before."""
    before = ranks[rows]
    place = np.arange(len(rows))
    heads = np.ones(len(rows), bool)
    heads[1:] = before[1:] != before[:-1]
    first = np.maximum.accumulate(np.where(heads, place, 0))
    own = np.maximum.accumulate(np.where(same, 0, place))
    ranks[rows] = before + own - first


def head(world: World, columns: Columns, rows: int) -> dict[str, list[Any]]:
    """The first rows of all ranks' rows, rank 0's first, as lists of Python's values; text as str. Collective."""
    few = take(columns, slice(0, rows))
    mine = {name: x.strings() if isinstance(x, Text) else x.tolist() for name, x in few.items()}
    parts = world.comm.allgather(mine)
    return {name: [value for part in parts for value in part[name]][:rows] for name in columns}
