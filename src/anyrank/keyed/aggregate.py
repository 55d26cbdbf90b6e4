"""Aggregates of groups: what a Table combines for them, and what they are in the end."""

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
#: What a Table combines for each function, and how.
_COMBINED = {"sum": ("sum",), "mean": ("sum",), "var": ("sum", "square"), "min": ("min",), "max": ("max",)}
_HOW = {"sum": "exact", "square": "squares", "min": "min", "max": "max"}

_quotient, _variance = Kernel("group", "quotient"), Kernel("group", "variance")


@dataclass(frozen=True)
class Aggregate:
    """A function of the rows of a group, of one column where it has a name."""

    function: str
    column: str = ""

    @property
    def label(self) -> str:
        """Its name in the output: `count`, or `mean(price)`."""
        return f"{self.function}({self.column})" if self.column else self.function


def parse_aggregate(text: str) -> Aggregate:
    """What an aggregate is: `count`, or `mean(price)`. Raises UsageError where it is no such thing."""
    match = re.fullmatch(r"\s*(\w+)(?:\((.+)\))?\s*", text)
    if match is None or match[1] not in FUNCTIONS or (not match[2] and match[1] != "count"):
        raise UsageError(
            f"--aggregate {text!r} is no aggregate. Use count, or one of {', '.join(FUNCTIONS)} of a column, such as "
            "mean(price)."
        )
    return Aggregate(match[1], (match[2] or "").strip())


class Aggregates:
    """Aggregates of columns of `kinds`, of which those that are `nullable` may have nulls, which take no part.

    Of a column c the values `xc_…` of a Table hold what is combined: exact sums, which have no order.
    """

    def __init__(self, aggregates: Sequence[Aggregate], kinds: dict[str, str], nullable: set[str]):
        self.aggregates = aggregates
        self.columns = [*dict.fromkeys(one.column for one in aggregates if one.column)]
        self.nullable = nullable
        self.kinds = {name: "int64" if kinds[name] == "bool" else kinds[name] for name in self.columns}

    def declared(self) -> dict[str, tuple[str, str]]:
        """The values of a Table that they need, as it takes them."""
        found = {}
        for c, name in enumerate(self.columns):
            if name in self.nullable:
                found[f"x{c}_n"] = ("int64", "sum")
            found |= {f"x{c}_{part}": (self.kinds[name], _HOW[part]) for part in self._parts(name)}
        return found

    def _parts(self, column: str) -> list[str]:
        used = [part for one in self.aggregates if one.column == column for part in _COMBINED.get(one.function, ())]
        return [*dict.fromkeys(used)]

    def values(self, batch: dict[str, Values]) -> dict[str, np.ndarray]:
        """The values of rows, as `Table.add` takes them."""
        found = {}
        for c, name in enumerate(self.columns):
            one = batch[name]
            if name in self.nullable:
                there = np.ones(len(one.values), np.int64) if one.nulls is None else (~one.nulls).astype(np.int64)
                found[f"x{c}_n"] = there
            if parts := self._parts(name):
                x = np.asarray(one.values).astype(self.kinds[name], copy=False)
                masked = x if one.nulls is None else np.ma.MaskedArray(x, one.nulls)
                found |= {f"x{c}_{part}": masked for part in parts}
        return found

    def finished(self, table: Table) -> Columns:
        """The aggregates of this rank's groups, by label; masked where there are too few values. Collective."""
        return {one.label: self._finish(one, table, table.columns) for one in self.aggregates}

    def _finish(self, one: Aggregate, table: Table, found: Columns) -> np.ndarray:
        if not one.column:
            return np.asarray(found["count"])
        c = self.columns.index(one.column)
        n = np.asarray(found[f"x{c}_n" if one.column in self.nullable else "count"])
        if one.function == "count":
            return n
        if one.function in ("min", "max"):
            return self._of_some(one, np.asarray(found[f"x{c}_{one.function}"]), n)
        limbs, specials = (np.ascontiguousarray(found[f"x{c}_sum{ending}"]) for ending in ("", "_special"))
        origin = Window(*table.facts[f"x{c}_sum_window"].tolist()).origin
        if one.function == "var":
            squares = np.ascontiguousarray(found[f"x{c}_square"])
            return mask(_variance(limbs, squares, n, origin, specials, 1), n < 2)
        if one.function == "mean":
            return self._of_some(one, _quotient(limbs, n, origin, specials), n)
        low = limbs[:, 0]
        whole = self.kinds[one.column] != "float64" and bool((limbs[:, 1:] == (low >> 63)[:, None]).all())
        if table.world.all(whole):
            return np.array(low)
        return np.asarray(_quotient(limbs, np.ones(len(n), np.int64), origin, specials))

    def _of_some(self, one: Aggregate, x: np.ndarray, n: np.ndarray) -> np.ndarray:
        """What has no value where there are none; masked on all ranks or on none."""
        return mask(x, n == 0) if one.column in self.nullable else x


def mask(x: np.ndarray, nulls: np.ndarray) -> np.ndarray:
    """The values, masked where they are null."""
    masked: np.ndarray = np.ma.MaskedArray(x, nulls)
    return masked
