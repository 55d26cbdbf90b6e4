"""Aggregates of groups: the values that a Table combines, and the results computed from them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from anyrank.errors import UsageError
from anyrank.kernel import Kernel
from anyrank.keyed.rows import Columns
from anyrank.keyed.table import Table
from anyrank.keyed.values import Values
from anyrank.keyed.window import Window

FUNCTIONS = ("count", "sum", "mean", "min", "max", "var")
#: The values that a Table combines for each function, and the name of the combination.
_COMBINED = {"sum": ("sum",), "mean": ("sum",), "var": ("sum", "square"), "min": ("min",), "max": ("max",)}
_HOW = {"sum": "exact", "square": "squares", "min": "min", "max": "max"}

_quotient, _variance = Kernel("group", "quotient"), Kernel("group", "variance")


@dataclass(frozen=True)
class Aggregate:
    """A function of a group's rows; `column` is empty for `count` of all rows."""

    function: str
    column: str = ""

    @property
    def label(self) -> str:
        """The column name in the output: `count`, or `mean(price)`."""
        return f"{self.function}({self.column})" if self.column else self.function


def parse_aggregate(text: str) -> Aggregate:
    """Parse an aggregate: `count`, or `mean(price)`. Raises UsageError if the text is not an aggregate."""
    match = re.fullmatch(r"\s*(\w+)(?:\((.+)\))?\s*", text)
    if match is None or match[1] not in FUNCTIONS or (not match[2] and match[1] != "count"):
        raise UsageError(
            f"--aggregate {text!r} is not an aggregate. Use count, or one of {', '.join(FUNCTIONS)} of a column, such "
            "as mean(price)."
        )
    return Aggregate(match[1], (match[2] or "").strip())


class Aggregates:
    """Aggregates of the columns in `kinds`. Columns in `nullable` may hold nulls; aggregates ignore nulls.

    The Table's values named `xN_…` belong to column number N. Their sums are exact, so the order of rows has no effect.
    """

    def __init__(self, aggregates: Sequence[Aggregate], kinds: dict[str, str], nullable: set[str]):
        self.aggregates = aggregates
        self.columns = [*dict.fromkeys(aggregate.column for aggregate in aggregates if aggregate.column)]
        self.nullable = nullable
        self.kinds = {name: "int64" if kinds[name] == "bool" else kinds[name] for name in self.columns}

    def table_values(self) -> dict[str, tuple[str, str]]:
        """Return the `values` argument of the Table: dtype and combination by name."""
        result = {}
        for c, name in enumerate(self.columns):
            if name in self.nullable:
                result[f"x{c}_n"] = ("int64", "sum")
            result |= {f"x{c}_{part}": (self.kinds[name], _HOW[part]) for part in self._parts(name)}
        return result

    def _parts(self, column: str) -> list[str]:
        used = [
            part
            for aggregate in self.aggregates
            if aggregate.column == column
            for part in _COMBINED.get(aggregate.function, ())
        ]
        return [*dict.fromkeys(used)]

    def values(self, batch: dict[str, Values]) -> dict[str, np.ndarray]:
        """Return the values of a batch of rows for `Table.add`."""
        result = {}
        for c, name in enumerate(self.columns):
            column = batch[name]
            if name in self.nullable:
                present = (
                    np.ones(len(column.values), np.int64) if column.nulls is None else (~column.nulls).astype(np.int64)
                )
                result[f"x{c}_n"] = present
            if parts := self._parts(name):
                x = np.asarray(column.values).astype(self.kinds[name], copy=False)
                masked = x if column.nulls is None else np.ma.MaskedArray(x, column.nulls)
                result |= {f"x{c}_{part}": masked for part in parts}
        return result

    def results(self, table: Table) -> Columns:
        """Return the aggregates of this rank's groups by label, masked where a group has too few values. Collective."""
        return {aggregate.label: self._result(aggregate, table, table.columns) for aggregate in self.aggregates}

    def _result(self, aggregate: Aggregate, table: Table, columns: Columns) -> np.ndarray:
        if not aggregate.column:
            return np.asarray(columns["count"])
        c = self.columns.index(aggregate.column)
        n = np.asarray(columns[f"x{c}_n" if aggregate.column in self.nullable else "count"])
        if aggregate.function == "count":
            return n
        if aggregate.function in ("min", "max"):
            return self._mask_empty(aggregate, np.asarray(columns[f"x{c}_{aggregate.function}"]), n)
        limbs, specials = (np.ascontiguousarray(columns[f"x{c}_sum{suffix}"]) for suffix in ("", "_special"))
        origin = Window(*table.metadata[f"x{c}_sum_window"].tolist()).origin
        if aggregate.function == "var":
            squares = np.ascontiguousarray(columns[f"x{c}_square"])
            return mask(_variance(limbs, squares, n, origin, specials, 1), n < 2)
        if aggregate.function == "mean":
            return self._mask_empty(aggregate, _quotient(limbs, n, origin, specials), n)
        low = limbs[:, 0]
        whole = self.kinds[aggregate.column] != "float64" and bool((limbs[:, 1:] == (low >> 63)[:, None]).all())
        if table.world.all(whole):
            return np.array(low)
        return np.asarray(_quotient(limbs, np.ones(len(n), np.int64), origin, specials))

    def _mask_empty(self, aggregate: Aggregate, x: np.ndarray, n: np.ndarray) -> np.ndarray:
        """Mask groups without values; the column has a mask on all ranks or on none."""
        return mask(x, n == 0) if aggregate.column in self.nullable else x


def mask(x: np.ndarray, nulls: np.ndarray) -> np.ndarray:
    """Return the values with a mask where they are null."""
    masked: np.ndarray = np.ma.MaskedArray(x, nulls)
    return masked
