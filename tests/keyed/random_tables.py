"""Random tables in files, queries on them, and the answer of plain Python (`fractions`, `decimal`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from random import Random

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

#: The Arrow type of each kind of column, as it is written, and its name for `--types`.
TYPES = {
    "text": (pa.string(), "text"),
    "int64": (pa.int64(), "int64"),
    "uint64": (pa.uint64(), "uint64"),
    "narrow": (pa.decimal128(18, 2), "decimal(18,2)"),
    "wide": (pa.decimal128(38, 6), "decimal(38,6)"),
    "float64": (pa.float64(), "float64"),
    "bool": (pa.bool_(), "bool"),
    "date": (pa.date32(), "date"),
    "time": (pa.timestamp("us"), "timestamp"),
}
#: Values that one rank may see and another not: extremes, zeros of both signs, empty text.
EXTREMES = {
    "text": ["", "a", "b", "é", "a,b", 'q"q', "line\nend", "x" * 300, "NA", "007", " "],
    "int64": [0, 1, -1, 7, 2**63 - 1, -(2**63), 10**15],
    "uint64": [0, 1, 2**64 - 1, 2**63, 2**53 + 1],
    "narrow": [Decimal(f"{number}E-2") for number in (0, 1, -1, 10**18 - 1, 1 - 10**18)],
    "wide": [Decimal(f"{number}E-6") for number in (0, 1, 10**34, -(10**34), 123456789012345678500000)],
    "float64": [0.0, -0.0, 0.1, 1e300, -1e300, 1e-300, 5e-324, 1.7e308, -1.7e308, math.inf, -math.inf, math.nan],
    "bool": [True, False],
    "date": [date(1970, 1, 1), date(1, 1, 1), date(9999, 12, 31), date(2024, 2, 29)],
    "time": [datetime(1970, 1, 1), datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)],
}
#: The key of NaN.
NAN = ("NaN",)
#: The kinds that a format can store; HDF5 has no nulls, and .npy has those of times.
STORED = {"h5": ("text", "int64", "uint64", "float64", "bool"), "npy": ("int64", "float64", "bool", "date", "time")}
FORMATS = ("csv", "parquet", "csv parquet", "h5", "npy")
#: The aggregates of the values of a kind; DuckDB has all of them, too.
AGGREGATES = {
    "text": ("count", "nunique"),
    "int64": ("sum", "mean", "min", "max", "nunique", "median", "var"),
    "uint64": ("sum", "mean", "min", "max", "median"),
    "narrow": ("sum", "mean", "min", "max", "nunique", "median"),
    "wide": ("sum", "mean", "min", "max", "nunique"),
    "float64": ("sum", "mean", "min", "max", "nunique", "median", "var"),
    "bool": ("sum", "mean", "count"),
    "date": ("min", "max", "nunique"),
    "time": ("min", "max", "count"),
}


def ordinary(random: Random, kind: str):
    """A value without surprises."""
    number = random.randrange(-(10**6), 10**6)
    return {
        "text": f"word {number % 50}",
        "int64": number,
        "uint64": abs(number),
        "narrow": Decimal(f"{number}E-2"),
        "wide": Decimal(f"{number * 10**12 + 1}E-6"),
        "float64": number / 64 + 1e-9 * number,
        "bool": number % 2 == 0,
        "date": date(2000, 1, 1) + timedelta(days=number % 9000),
        "time": datetime(2000, 1, 1) + timedelta(microseconds=number * 10**7),
    }[kind]


@dataclass(frozen=True)
class Case:
    """A table and a query, which depend only on a number."""

    number: int

    @cached_property
    def _random(self) -> Random:
        return Random(self.number)

    @cached_property
    def formats(self) -> list[str]:
        """The suffix of each file."""
        suffixes = self._random.choice(FORMATS).split()
        return [self._random.choice(suffixes) for _ in range(self._random.choice((1, 2, 4)))]

    @cached_property
    def kinds(self) -> dict[str, str]:
        """The kind of each column: k and l are keys."""
        kinds = [*STORED.get(self.formats[0], TYPES)]
        names = ["k", *("l" * (self._random.random() < 0.4)), *"xyz"]
        return {name: self._random.choice(kinds) for name in names} | {"i": "int64"}

    @cached_property
    def keys(self) -> list[str]:
        return [name for name in self.kinds if name in "kl"]

    @cached_property
    def aggregates(self) -> list[tuple[str, str]]:
        """The functions and their columns; every case counts rows."""
        all_ = [(function, name) for name in "xyz" for function in AGGREGATES[self.kinds[name]]]
        return [("count", ""), *self._random.sample(all_, min(6, len(all_)))]

    @cached_property
    def where(self) -> str:
        """The condition for rows, in the words of anyrank and of SQL."""
        return Random(f"{self.number} where").choice(("", "", "i > 0", "i >= -7 and i < 100000"))

    @cached_property
    def files(self) -> list[dict[str, list]]:
        """The columns of each file, as the file holds them: empty text is null in CSV."""
        random, _ = Random(f"{self.number} rows"), self.aggregates
        pools = {name: self._pool(random, name) for name in self.kinds}
        files = []
        for suffix in self.formats:
            rows = random.choice((0, 1, 2, 5, 60, 60, 300))
            files.append({name: self._column(random, rows, pools[name], suffix) for name in self.kinds})
        return files

    def _pool(self, random: Random, name: str) -> list:
        """The values of a column: few or many, with or without extremes and nulls."""
        kind = self.kinds[name]
        pool = [ordinary(random, kind) for _ in range(random.choice((1, 3, 400)))]
        pool += random.choice(([], EXTREMES[kind], EXTREMES[kind] * 9))
        if kind == "float64" and random.random() < 0.5:
            pool = [value for value in pool if math.isfinite(value)]
        pool += [None] * random.choice((0, 0, 1, len(pool)))
        return [random.choice(pool)] * (9 * len(pool)) + pool if random.random() < 0.2 else pool  # one is frequent

    @staticmethod
    def _column(random: Random, rows: int, pool: list, suffix: str) -> list:
        column = [random.choice(pool) for _ in range(rows)]
        if suffix == "h5" or (suffix == "npy" and not any(isinstance(value, date) for value in pool)):
            values = [value for value in pool if value is not None]
            column = [random.choice(values) if value is None else value for value in column]
        if suffix == "csv":
            column = [None if value == "" else value for value in column]
        if random.random() < 0.2:  # all nulls at the end, so that only the last rank has them
            column.sort(key=lambda value: value is None)
        return column

    def write(self, folder: Path) -> None:
        """Write the files into a new folder."""
        folder.mkdir()
        for number, (suffix, columns) in enumerate(zip(self.formats, self.files, strict=True)):
            self._write(folder / f"{number}.{suffix}", columns, Random(f"{self.number} {number}"))

    def _write(self, path: Path, columns: dict[str, list], random: Random) -> None:
        if path.suffix == ".h5":
            with h5py.File(path, "w") as file:
                for name, column in columns.items():
                    file[name] = to_numpy(column, self.kinds[name])
        elif path.suffix == ".npy":
            arrays = {name: to_numpy(column, self.kinds[name]) for name, column in columns.items()}
            table = np.zeros(len(columns["i"]), [(name, array.dtype) for name, array in arrays.items()])
            for name, array in arrays.items():
                table[name] = array
            np.save(path, table)
        elif path.suffix == ".csv":
            pa.csv.write_csv(self.arrow(columns), path)
        else:
            pa.parquet.write_table(self.arrow(columns), path, row_group_size=random.choice((1, 30, 1000)))

    def arrow(self, columns: dict[str, list]) -> pa.Table:
        """Columns as an Arrow table."""
        return pa.table({name: pa.array(column, TYPES[self.kinds[name]][0]) for name, column in columns.items()})

    def options(self, folder: Path) -> dict:
        """The parameters of groupby."""
        size = sum(path.stat().st_size for path in folder.iterdir())
        stated = ",".join(f"{name}={TYPES[kind][1]}" for name, kind in self.kinds.items())
        return {
            "table": str(folder),
            "by": ",".join(self.keys),
            "aggregate": ",".join(f"{function}({name})" if name else function for function, name in self.aggregates),
            "where": self.where,
            "types": stated if "csv" in self.formats else "",
            "chunk": max(64, size // Random(f"{self.number} chunk").choice((1, 2, 3, 5))),
            "top": 10**6,
        }

    def answer(self) -> list[list]:
        """The groups in the order of their keys: NaN and then null last."""
        groups: dict[tuple, list[dict]] = {}
        for columns in self.files:
            for row in zip(*columns.values(), strict=True):
                values = dict(zip(columns, row, strict=True))
                if kept(self.where, values["i"]):
                    groups.setdefault(tuple(key_of(values[name]) for name in self.keys), []).append(values)
        result = []
        for key in sorted(groups, key=lambda key: [order_of(value) for value in key]):
            rows = groups[key]
            cells = [math.nan if value is NAN else as_json(value) for value in key]
            for function, name in self.aggregates:
                column = [row[name] for row in rows if row[name] is not None] if name else rows
                cells.append(as_json(aggregate(function, column, self.kinds.get(name, ""))))
            result.append(cells)
        return result


def to_numpy(column: list, kind: str) -> np.ndarray:
    """Values as an array."""
    if kind in ("date", "time"):
        return np.array(column, "M8[D]" if kind == "date" else "M8[us]")
    if kind == "text":
        return np.array(column, object) if column else np.array([], "S1")
    return np.array(column, kind)


def kept(where: str, number: int | None) -> bool:
    """Whether a condition of a Case is true."""
    return not where or (number is not None and (number > 0 if where == "i > 0" else -7 <= number < 100_000))


def key_of(value):
    """A value that equals those of its group: NaN is one group, and so are zeros of both signs."""
    return (NAN if value != value else value + 0.0) if isinstance(value, float) else value


def order_of(value) -> tuple:
    """What keys are sorted by."""
    if value is None:
        return (2,)
    if value is NAN:
        return (1,)
    return (0, value.encode() if isinstance(value, str) else value)


def rounded(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def aggregate(function: str, column: list, kind: str):
    """An aggregate of the values that are not null, computed exactly and rounded once."""
    if function == "count":
        return len(column)
    if function == "nunique":
        return len({*map(key_of, column)})
    if function == "sum" and kind != "float64":
        with localcontext() as context:
            context.prec = 100
            zero = {"narrow": Decimal("0.00"), "wide": Decimal("0.000000")}.get(kind, 0)
            return sum(map(int, column) if kind == "bool" else column, zero)
    if function != "sum" and len(column) < (2 if function == "var" else 1):
        return None
    if function in ("min", "max"):
        return extreme(column, function == "max")
    return of_fractions(function, column)


def of_fractions(function: str, column: list) -> float:
    special = [value for value in column if isinstance(value, float) and not math.isfinite(value)]
    if function == "median":
        return median(column)
    if special:
        return math.nan if function == "var" else sum(special)
    numbers = [Fraction(value) for value in column]
    total = sum(numbers, Fraction(0))
    if function == "sum":
        return rounded(total)
    if function == "mean":
        return rounded(total / len(numbers))
    squares = sum(number * number for number in numbers)
    return rounded((squares - total * total / len(numbers)) / (len(numbers) - 1))


def extreme(column: list, largest: bool):
    if any(value != value for value in column):
        return math.nan
    key = (lambda v: (v, math.copysign(1, v))) if isinstance(column[0], float) else (lambda v: v)
    return (max if largest else min)(column, key=key)


def median(column: list) -> float:
    if any(value != value for value in column):
        return math.nan
    ordered = sorted(column)
    low, high = ordered[(len(column) - 1) // 2], ordered[len(column) // 2]
    if isinstance(low, float) and not (math.isfinite(low) and math.isfinite(high)):
        return low if low == high else low + high
    return rounded((Fraction(low) + Fraction(high)) / 2) + 0.0


def as_json(value):
    """A value as the result of groupby holds it."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    return value.isoformat() if isinstance(value, date) else value
