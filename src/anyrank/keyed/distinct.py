"""Aggregates of the distinct values of groups: their number, the median and other quantiles.

A Table counts the rows of each group and value, so that equal values take the memory of one. Its rows are then sorted
by group and value over all ranks. A rank knows from the others how many rows of its first and last group they have, so
it finds the values at the positions of a quantile among its rows, and sends them to the owner of the group.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anyrank.errors import AnyrankError
from anyrank.exchange.shuffle import Shuffle
from anyrank.keyed.composite_keys import decode, encode
from anyrank.keyed.group_keys import key_columns, key_kinds
from anyrank.keyed.keymap import KeyMap, hash_range, hashes_of, owners_of
from anyrank.keyed.order import ordered
from anyrank.keyed.row_batch import shuffle_column
from anyrank.keyed.rows import Column, Columns, Text, take
from anyrank.keyed.runs import Runs, rows_between
from anyrank.keyed.sample import estimate_cardinality, expected_distinct, sample_rows
from anyrank.keyed.spill import KEY
from anyrank.keyed.table import Table
from anyrank.keyed.table_storage import one_rank
from anyrank.keyed.types import arrow, is_wide
from anyrank.keyed.values import Values
from anyrank.world import World

_VALUE = "value"


class Pieces(NamedTuple):
    """The rows of each group on this rank: the first row and the one after the last, and the rows that they count.

    `before` and `total` are the numbers of rows of the group on the ranks before, and on all ranks.
    """

    first: np.ndarray
    last: np.ndarray
    counted: np.ndarray
    before: np.ndarray
    total: np.ndarray


class Distinct:
    """The distinct values of a column in each group, with the number of their rows.

    Parameters
    ----------
    name : str
        The name of the Table in the State.
    world : World
        The ranks that hold the rows.
    keys : mapping of str to str
        The key columns of the groups.
    type_ : Arrow type
        The type of the values.
    """

    def __init__(self, name: str, world: World, keys: Mapping[str, str], type_: Any):
        self.type, self.keys, self.spread = type_, dict(keys), world.size
        description = "groups and distinct values of a column"
        self.table = Table(name, world, self.keys | key_kinds(_VALUE, type_), description=description)

    @property
    def _kinds(self) -> dict[str, np.dtype[Any] | None]:
        """The types of the key columns of the groups."""
        return {name: self.table.keys[name] for name in self.keys}

    def gather(self, keys: Sequence[Column], values: Values) -> None:
        """Add rows, of which those with a null are left out. Collective."""
        columns, nulls = key_columns(values)
        kept = slice(None) if values.nulls is None else nulls == 0
        rows, counts = self._combine([column[kept] for column in (*keys, *columns)])
        self.table.gather(*rows, count=counts)

    def _combine(self, columns: list[Column]) -> tuple[list[Column], np.ndarray | None]:
        """Return the rows, each once with its number, if many are equal: numbers of groups are shorter than keys."""
        keys, values = columns[: len(self.keys)], columns[len(self.keys) :]
        groups, kinds = np.empty(len(keys[0]), np.uint32), self.table.keys
        KeyMap().add(encode({name: kinds[name] for name in self.keys}, keys), None, groups)
        short = {"group": groups.dtype, **{name: kinds[name] for name in kinds if name not in self.keys}}
        pairs = encode(short, [groups, *values])
        distinct = estimate_cardinality(hashes_of(pairs[sample_rows(len(pairs))]))
        if 2 * expected_distinct(distinct, len(pairs)) > len(pairs):
            return columns, None
        rows = KeyMap()
        rows.add(pairs)
        _, slots = rows.entries()
        numbers, *values = decode(short, rows.keys_at(slots)).values()
        first = np.empty(int(groups.max(initial=0)) + 1, np.int64)
        first[groups] = np.arange(len(groups))
        return [*(key[first[np.asarray(numbers)]] for key in keys), *values], rows.weights_at(slots)

    def by_group(self, part_bytes: int, folder: Path) -> Runs:
        """Return all rows sorted by the hash of their group, on the rank that owns the hash, on disk. Collective.

        The rows are sent in parts of about `part_bytes`, the same on all ranks.
        """
        table, world, runs = self.table, self.table.world, Runs(folder)
        size = np.array([table.nbytes + table.bytes_on_disk], np.int64)
        parts = max(1, -(-int(world.allreduce(size, "max")[0]) // part_bytes))
        for number in range(parts):
            with world.raise_on_all_ranks():
                rows = table.part(number, parts).columns
            rows = {KEY: hashes_of(encode(self._kinds, [rows[name] for name in self.keys])), **rows}
            rows = take(rows, np.argsort(np.asarray(rows[KEY])))
            owners = owners_of(np.asarray(rows[KEY]), world.size)
            shuffle = Shuffle(world, np.bincount(owners, minlength=world.size))
            rows = {name: shuffle_column(shuffle, column) for name, column in rows.items()}
            with world.raise_on_all_ranks():
                runs.spill(take(rows, np.argsort(np.asarray(rows[KEY]))), {})
        return runs

    def part(self, runs: Runs, number: int, parts: int, most: int) -> Distinct:
        """Return the values of the groups of `Table.part`, on one rank. Not collective.

        Raises AnyrankError if they take more than `most` bytes.
        """
        part, size = self.empty_part(parts), 0
        rank, ranks = self.table.world.rank, self.table.world.size
        for _, rows in rows_between(runs.runs, *hash_range(rank * parts + number, ranks * parts)):
            size += sum(column.nbytes for column in rows.values())
            if size > most:
                raise AnyrankError(
                    f"table {self.table.name}: the distinct values of a group take over {most} bytes, an eighth of the "
                    "memory of a rank for data, and must fit. Use a larger --memory-limit."
                )
            part.table.add(*(rows[name] for name in part.table.keys), count=np.asarray(rows["count"]))
        return part

    def empty_part(self, parts: int) -> Distinct:
        """Return no values, for a part of the groups on one rank. Not collective."""
        part = Distinct(self.table.name, one_rank(), self.keys, self.type)
        part.spread = self.table.world.size * parts
        return part

    def results(self, groups: Table, quantiles: Sequence[Fraction]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the number of distinct values, and quantiles, in the order of the rows of `groups`. Collective.

        A quantile is null (masked) without values, and NaN if a value is NaN.
        """
        wide = is_wide(self.type)
        word = "uint64" if arrow().types.is_uint64(self.type) else "int64"
        kind = ("float64" if arrow().types.is_floating(self.type) else word, "min_wide" if wide else "min")
        names = [f"{end}{k}" for k in range(len(quantiles)) for end in ("low", "high")]
        sums = dict.fromkeys(("distinct", "rows", "nan"), ("int64", "sum"))
        result = Table("result", groups.world, self.keys, sums | dict.fromkeys(names, kind))
        result.spread = groups.spread
        result.clear()
        rows = self.table.columns
        pieces = Pieces(*[np.arange(len(self.table))] * 5)
        if quantiles:
            rows = ordered(groups.world, rows, [*self.table.keys], unique=True)
            pieces = self._pieces(rows)
        self._add(result, take({name: rows[name] for name in self.keys}, pieces.first), rows, pieces, quantiles)
        keys = {name: groups.columns[name] for name in self.keys}  # also groups without values
        empty = {name: _nothing(len(groups), kind) for name in names}
        zeros = {name: np.zeros(len(groups), np.int64) for name in sums}
        result.add(*keys.values(), **zeros, **empty)
        columns = result.columns
        n, power = np.asarray(columns["rows"]), 10 ** getattr(self.type, "scale", 0)
        ends = [(np.asarray(columns[f"low{k}"]), np.asarray(columns[f"high{k}"])) for k in range(len(quantiles))]
        found = [_interpolate(*x, *_position(n, q)[1:], power) for x, q in zip(ends, quantiles, strict=True)]
        nan = np.asarray(columns["nan"]) > 0
        return np.asarray(columns["distinct"]), [np.ma.MaskedArray(np.where(nan, np.nan, x), n == 0) for x in found]

    def _pieces(self, rows: Columns) -> Pieces:
        """Return the groups of this rank's sorted rows. Collective."""
        keys, counts = encode(self._kinds, [rows[name] for name in self.keys]), np.asarray(rows["count"])
        numbers = np.empty(len(keys), np.uint32)
        KeyMap(self.spread).add(keys, None, numbers)
        first = np.flatnonzero(np.diff(numbers, prepend=~numbers[:1]))
        last = np.append(first[1:], len(keys)) if len(keys) else first
        counted = np.add.reduceat(counts, first) if len(keys) else counts
        before, total = np.zeros_like(counted), counted.copy()
        mine = (
            []
            if not len(keys)
            else [(_bytes(keys, row), int(counted[piece]), len(first)) for row, piece in ((0, 0), (len(keys) - 1, -1))]
        )
        ranks, rank = self.table.world.comm.allgather(mine), self.table.world.rank
        if mine:
            before[0] = _rows_of(mine[0][0], [edges[-1] for edges in ranks[:rank][::-1] if edges])
            total[0] += before[0]
            total[-1] += _rows_of(mine[-1][0], [edges[0] for edges in ranks[rank + 1 :] if edges])
        return Pieces(first, last, counted, before, total)

    def _add(self, result: Table, keys: Columns, rows: Columns, pieces: Pieces, quantiles: Sequence[Fraction]) -> None:
        """Add the numbers of values, and the values at the positions of quantiles, to the result. Not collective."""
        counts, none = np.asarray(rows["count"]), np.zeros(len(pieces.first), np.int64)
        if not quantiles:
            result.add(*keys.values(), distinct=none + 1, rows=counts, nan=none)
            return
        values, ends = self._values(rows), np.cumsum(counts)
        start, added = ends[pieces.first] - counts[pieces.first], {}
        for k, quantile in enumerate(quantiles):
            low, rest, _ = _position(pieces.total, quantile)
            for name, position in (("low", low), ("high", low + (rest > 0))):
                here = (position >= pieces.before) & (position < pieces.before + pieces.counted)
                row = np.searchsorted(ends, start + position - pieces.before, side="right")
                added[f"{name}{k}"] = _masked(values[np.where(here, row, 0)], ~here)
        last = values[pieces.last - 1]  # NaN is the greatest value
        nan = none if last.ndim == 2 else (last != last).astype(np.int64)
        result.add(*keys.values(), distinct=pieces.last - pieces.first, rows=pieces.counted, nan=nan, **added)

    def _values(self, rows: Columns) -> np.ndarray:
        """Return the values as numbers, those of two words with the lower one first."""
        column = np.asarray(rows[_VALUE])
        if is_wide(self.type):
            return np.stack([np.asarray(rows[f"{_VALUE}_low"]).view(np.int64), column], axis=1)
        return column.astype(np.int64) if column.dtype == np.uint8 else column


def _bytes(keys: Text | np.ndarray, row: int) -> bytes:
    part = keys[row : row + 1]
    return part.data.tobytes() if isinstance(part, Text) else part.tobytes()


def _rows_of(key: bytes, edges: Sequence[tuple[bytes, int, int]]) -> int:
    """Return the rows of a group on other ranks, from the key, rows and number of groups of each, the nearest first."""
    rows = 0
    for other, count, groups in edges:
        rows += count if other == key else 0
        if other != key or groups > 1:
            break
    return rows


def _position(n: np.ndarray, quantile: Fraction) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the position of a quantile among n values: the whole part, and the rest as numerator and denominator."""
    top, bottom = quantile.as_integer_ratio()
    whole, part = np.divmod(np.maximum(n - 1, 0), bottom)  # with at most 9 digits, no product overflows
    more, rest = np.divmod(part * top, bottom)
    return whole * top + more, rest, bottom


def _interpolate(low: np.ndarray, high: np.ndarray, rest: np.ndarray, bottom: int, power: int) -> np.ndarray:
    """Return (low + (high − low) · rest / bottom) / power, rounded once."""
    between = _between_floats if low.dtype.kind == "f" else _between_integers
    terms = zip(_numbers(low), _numbers(high), rest.tolist(), strict=True)
    return np.array([between(a, b, c, bottom, power) for a, b, c in terms], np.float64)


def _numbers(values: np.ndarray) -> list[Any]:
    if values.ndim == 1:
        return [*values.tolist()]
    return [int.from_bytes(row.tobytes(), "little", signed=True) for row in values]


def _between_integers(low: int, high: int, rest: int, bottom: int, power: int) -> float:
    return (low * (bottom - rest) + high * rest) / (bottom * power)  # Python rounds quotients of integers once


def _between_floats(low: float, high: float, rest: int, bottom: int, _: int) -> float:
    if not rest or low == high:
        return low
    if not (math.isfinite(low) and math.isfinite(high)):
        return low + high
    return float((Fraction(low) * (bottom - rest) + Fraction(high) * rest) / bottom)


def _masked(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    full = mask if values.ndim == 1 else np.repeat(mask[:, None], values.shape[1], axis=1)
    masked: np.ndarray = np.ma.MaskedArray(values, full)
    return masked


def _nothing(n: int, kind: tuple[str, str]) -> np.ndarray:
    return _masked(np.zeros((n, 2) if kind[1] == "min_wide" else n, kind[0]), np.ones(n, bool))
