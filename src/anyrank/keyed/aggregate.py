"""Aggregates of groups: the values that a Table combines, and the results computed from them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from anyrank.errors import UsageError
from anyrank.kernel import Kernel
from anyrank.keyed.distinct import Distinct
from anyrank.keyed.rows import Columns
from anyrank.keyed.table import Table
from anyrank.keyed.tables.columns import parse_call, parse_name
from anyrank.keyed.types import WIDE, arrow, is_wide
from anyrank.keyed.values import Values
from anyrank.keyed.window import Window

#: The values that a Table combines for each function, and the name of the combination.
_COMBINED: dict[str, tuple[str, ...]] = {
    "count": (),
    "sum": ("sum",),
    "mean": ("sum",),
    "var": ("sum", "square"),
    "std": ("sum", "square"),
    "min": ("min",),
    "max": ("max",),
    "nunique": (),
    "median": (),
    "quantile": (),
}
#: The functions of distinct values: see `Distinct`.
DISTINCT = ("nunique", "median", "quantile")
_HOW = {"sum": "exact", "square": "squares", "min": "min", "max": "max"}
FUNCTIONS = (*_COMBINED,)
#: What the values of a column are for, by function; see `ColumnSpec`.
_ROLES = {"count": "any", "nunique": "any", "min": "value", "max": "value"}
#: `quantile(price, 0.9)`, with a column's name as in `parse_call`.
_QUANTILE = re.compile(r'\s*quantile\s*\(\s*("(?:[^"]|"")*"|[^",]*?)\s*,\s*(1(?:\.0{0,9})?|0?\.[0-9]{1,9}|0)\s*\)\s*')

_quotient, _variance = Kernel("group", "quotient"), Kernel("group", "variance")


@dataclass(frozen=True)
class Aggregate:
    """A function of a group's rows; `column` is empty for `count` of all rows. `quantile` is from 0 to 1."""

    function: str
    column: str = ""
    quantile: str = ""

    @property
    def label(self) -> str:
        """The column name in the output: `count`, `mean(price)`, or `quantile(price, 0.9)`."""
        if self.quantile:
            return f"{self.function}({self.column}, {self.quantile})"
        return f"{self.function}({self.column})" if self.column else self.function

    @property
    def role(self) -> str:
        """What the values of the column are for: see `ColumnSpec`."""
        return _ROLES.get(self.function, "number")


def parse_aggregate(text: str) -> Aggregate:
    """Parse an aggregate: `count`, or `mean(price)`. Raises UsageError if the text is not an aggregate."""
    if quantile := _QUANTILE.fullmatch(text):
        return Aggregate("quantile", parse_name(quantile[1]), quantile[2])
    function, column = parse_call(text) or (text.strip(), "")
    if function == "quantile":
        raise UsageError(f"--aggregate {text!r} must be quantile(COLUMN, Q), with Q from 0 to 1, such as 0.9.")
    if function not in FUNCTIONS or (not column and function != "count"):
        raise UsageError(
            f"--aggregate {text!r} is not an aggregate. Use count, or one of {', '.join(FUNCTIONS)} of a column, such "
            "as mean(price)."
        )
    return Aggregate(function, column)


class Aggregates:
    """Aggregates of the columns in `types`. Columns in `nullable` may hold nulls; aggregates ignore nulls.

    The Table's values named `xN_…` belong to column number N. Their sums are exact, so the order of rows has no effect.
    """

    def __init__(self, aggregates: Sequence[Aggregate], types: Mapping[str, Any], nullable: set[str]):
        self.aggregates = aggregates
        combined = [a for a in aggregates if a.column and a.function not in DISTINCT]
        self.columns = [*dict.fromkeys(aggregate.column for aggregate in combined)]
        #: The columns whose distinct values are needed, and the quantiles to compute.
        self.quantiles: dict[str, list[Fraction]] = {a.column: [] for a in aggregates if a.function in DISTINCT}
        for aggregate in aggregates:
            if aggregate.function in ("median", "quantile"):
                self.quantiles[aggregate.column].append(Fraction(aggregate.quantile or "0.5"))
        self.nullable = nullable
        self.source_types = types
        for aggregate in aggregates:
            if aggregate.function in ("var", "std") and is_wide(types[aggregate.column]):
                raise UsageError(f"{aggregate.label}: variances of decimals of more than 18 digits are not computed.")
        #: The type of each result by label.
        self.types = {aggregate.label: self._type(aggregate) for aggregate in aggregates}

    def _type(self, aggregate: Aggregate) -> Any:
        pa = arrow()
        if aggregate.function in ("count", "nunique"):
            return pa.int64()
        type_ = self.source_types[aggregate.column]
        if aggregate.function in ("min", "max"):
            return type_
        if aggregate.function == "sum" and not pa.types.is_floating(type_):
            return pa.decimal128(WIDE, self._scale(aggregate.column))
        return pa.float64()

    def _scale(self, column: str) -> int:
        type_ = self.source_types[column]
        return type_.scale if arrow().types.is_decimal(type_) else 0

    def _dtype(self, column: str) -> str:
        """Return the dtype in which the values of a column are combined."""
        type_ = str(self.source_types[column])
        return {"double": "float64", "uint64": "uint64"}.get(type_, "int64")

    def table_values(self) -> dict[str, tuple[str, str]]:
        """Return the `values` argument of the Table: dtype and combination by name."""
        result = {}
        for c, name in enumerate(self.columns):
            if name in self.nullable:
                result[f"x{c}_n"] = ("int64", "sum")
            for part in self._parts(name):
                if not is_wide(self.source_types[name]):
                    result[f"x{c}_{part}"] = (self._dtype(name), _HOW[part])
                elif part == "sum":
                    result |= {f"x{c}_low": ("uint64", "exact"), f"x{c}_high": ("int64", "exact")}
                else:
                    result[f"x{c}_{part}"] = ("int64", f"{part}_wide")
        return result

    def _parts(self, column: str) -> list[str]:
        used = (_COMBINED[aggregate.function] for aggregate in self.aggregates if aggregate.column == column)
        return [*dict.fromkeys(part for parts in used for part in parts)]

    def values(self, batch: dict[str, Values]) -> dict[str, np.ndarray]:
        """Return the values of a batch of rows for `Table.add`."""
        result = {}
        for c, name in enumerate(self.columns):
            column = batch[name]
            if name in self.nullable:
                nulls = np.zeros(len(column.values), bool) if column.nulls is None else column.nulls
                result[f"x{c}_n"] = (~nulls).astype(np.int64)
            if not (parts := self._parts(name)):
                continue
            x = np.asarray(column.values)
            if is_wide(self.source_types[name]):
                words = {"low": np.ascontiguousarray(x[:, 0]).view(np.uint64), "high": np.ascontiguousarray(x[:, 1])}
                arrays = {p: x for p in parts if p != "sum"} | (words if "sum" in parts else {})
            else:
                arrays = dict.fromkeys(parts, x.astype(self._dtype(name), copy=False))
            result |= {f"x{c}_{part}": _masked(array, column.nulls) for part, array in arrays.items()}
        return result

    def results(self, table: Table, distinct: Mapping[str, Distinct]) -> Columns:
        """Return the aggregates of this rank's groups by label, masked where a group has too few values. Collective.

        `distinct` has the distinct values of the columns in `quantiles`.
        """
        found = {name: iter(self._of_distinct(name, table, distinct[name])) for name in self.quantiles}
        return {
            a.label: next(found[a.column]) if a.function in DISTINCT else self._result(a, table, table.columns)
            for a in self.aggregates
        }

    def _of_distinct(self, column: str, table: Table, distinct: Distinct) -> list[np.ndarray]:
        """Return the aggregates of distinct values of a column, in their order. Collective."""
        number, quantiles = distinct.results(table, self.quantiles[column])
        rest = iter(quantiles)
        functions = [a.function for a in self.aggregates if a.column == column and a.function in DISTINCT]
        return [number if function == "nunique" else next(rest) for function in functions]

    def _result(self, aggregate: Aggregate, table: Table, columns: Columns) -> np.ndarray:
        if not aggregate.column:
            return np.asarray(columns["count"])
        name, c = aggregate.column, self.columns.index(aggregate.column)
        n = np.asarray(columns[f"x{c}_n" if name in self.nullable else "count"])
        if aggregate.function == "count":
            return n
        if aggregate.function in ("min", "max"):
            return self._mask_empty(name, np.asarray(columns[f"x{c}_{aggregate.function}"]), n)
        if is_wide(self.source_types[name]):
            return self._of_wide(aggregate, table, columns, n)
        limbs, specials = (np.ascontiguousarray(columns[f"x{c}_sum{suffix}"]) for suffix in ("", "_special"))
        origin, power = _origin(table, f"x{c}_sum"), 10 ** self._scale(name)
        if aggregate.function in ("var", "std"):
            squares = np.ascontiguousarray(columns[f"x{c}_square"])
            if power == 1:
                variance = _variance(limbs, squares, n, origin, specials, 1)
            else:
                terms = zip(_integers(limbs), _integers(squares), n.tolist(), strict=True)
                pairs = [((k * q - t * t), k * (k - 1) * power**2) if k > 1 else (0, 1) for t, q, k in terms]
                variance = np.array([a / b for a, b in pairs], np.float64)
            return _masked(np.sqrt(variance) if aggregate.function == "std" else variance, n < 2)
        if aggregate.function == "mean":
            if power == 1:
                return self._mask_empty(name, _quotient(limbs, n, origin, specials), n)
            return self._mask_empty(name, _ratios(_integers(limbs), n, power), n)
        if self._dtype(name) == "float64":
            return np.asarray(_quotient(limbs, np.ones(len(n), np.int64), origin, specials))
        return np.ascontiguousarray(limbs[:, :2])

    def _of_wide(self, aggregate: Aggregate, table: Table, columns: Columns, n: np.ndarray) -> np.ndarray:
        """Return sum or mean of decimals of two words."""
        c = self.columns.index(aggregate.column)
        low, high = (_integers(np.ascontiguousarray(columns[f"x{c}_{word}"])) for word in ("low", "high"))
        sums = [a + (b << 64) for a, b in zip(low, high, strict=True)]
        if aggregate.function == "mean":
            means = _ratios(sums, n, 10 ** self._scale(aggregate.column))
            return self._mask_empty(aggregate.column, means, n)
        with table.world.raise_on_all_ranks():
            if any(abs(total) >= 10**WIDE for total in sums):
                after = f", {scale} of them after the point" if (scale := self._scale(aggregate.column)) else ""
                fix = f", or --types '{aggregate.column}=decimal({WIDE},S)' with a smaller S" if scale else ""
                raise UsageError(
                    f"{aggregate.label}: a sum has more than {WIDE} digits{after}. Use mean, or fewer rows{fix}."
                )
        words = [total & (1 << 128) - 1 for total in sums]
        halves = [(word & (1 << 64) - 1, word >> 64) for word in words]
        return np.array(halves, np.uint64).reshape(-1, 2).view(np.int64)

    def _mask_empty(self, column: str, x: np.ndarray, n: np.ndarray) -> np.ndarray:
        """Mask groups without values; the column has a mask on all ranks or on none."""
        return _masked(x, n == 0) if column in self.nullable else x


def rounded(table: Table, name: str, *, mean: bool = False) -> np.ndarray:
    """Return the exact sums of a Table as float64, each rounded once, in the order of `table.columns`. Collective.

    Parameters
    ----------
    table : Table
        A Table with a value that is combined by `exact`.
    name : str
        The name of the value.
    mean : bool
        Whether to divide by `count`, the number of rows of the key.

    Raises
    ------
    UsageError
        If the Table has no such value.

    Examples
    --------
    >>> prices = Table("prices", World(), {"user": "int64"}, {"paid": ("float64", "exact")})
    >>> prices.add([7, 7, 7], paid=[0.1, 0.2, 0.3])
    >>> keyed.rounded(prices, "paid"), keyed.rounded(prices, "paid", mean=True)
    (array([0.6]), array([0.2]))
    """
    if name not in table.values or table.values[name].name != "exact":
        exact = [name for name, value in table.values.items() if value.name == "exact"]
        raise UsageError(f"table {table.name} has no exact sum {name!r}. It has {', '.join(exact) or 'none'}.")
    columns = table.columns
    limbs, specials = (np.ascontiguousarray(columns[f"{name}{suffix}"]) for suffix in ("", "_special"))
    counts = np.asarray(columns["count"]) if mean else np.ones(len(limbs), np.int64)
    return np.asarray(_quotient(limbs, counts, _origin(table, name), specials))


def _origin(table: Table, name: str) -> int:
    return Window(*table.metadata[f"{name}_window"].tolist()).origin


def _ratios(sums: Sequence[int], counts: np.ndarray, power: int) -> np.ndarray:
    """Return sums / (counts · power), correctly rounded: Python rounds quotients of integers once."""
    terms = zip(sums, counts.tolist(), strict=True)
    return np.array([total / (count * power) if count else 0.0 for total, count in terms], np.float64)


def _integers(limbs: np.ndarray) -> list[int]:
    return [int.from_bytes(row.tobytes(), "little", signed=True) for row in limbs]


def _masked(x: np.ndarray, nulls: np.ndarray | None) -> np.ndarray:
    """Return the values with a mask where they are null; without nulls, the values."""
    if nulls is None:
        return x
    masked: np.ndarray = np.ma.MaskedArray(x, nulls if x.ndim == 1 else np.repeat(nulls[:, None], x.shape[1], axis=1))
    return masked
