"""One row of a time series: the numbers that `observe` returns at a step, and their text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Number = bool | int | float
#: The name of the first column.
STEP = "step"
#: The largest number of columns; more values are a Field, not a row.
MOST_COLUMNS = 1000
#: A name stands in a header of CSV without quotes, and is the name of an HDF5 dataset.
_NAME = re.compile(r"""[^\s,"'/\x00-\x1f\x7f]([^,"'/\x00-\x1f\x7f]*[^\s,"'/\x00-\x1f\x7f])?""")
_WHOLE = re.compile(r"-?\d+")
_LARGEST = 2**63


@dataclass(frozen=True)
class Row:
    """The numbers of a step by the names of their columns."""

    step: int
    values: Mapping[str, Number]

    @classmethod
    def of(cls, step: int, observed: Any) -> Row:
        """Return the row of what `observe` returned; ValueError, with the rule and a fix, if it is no row."""
        if not isinstance(observed, Mapping):
            raise ValueError(
                f"observe returned {_short(observed)}, but must return numbers by name. "
                'Return a dictionary, such as {"mean": exact.mean(state.T)}.'
            )
        cells = [cell for name, value in observed.items() for cell in _cells(name, value)]
        names = [STEP, *(name for name, _ in cells)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"observe returned two columns {twice!r}. Give one of them another name.")
        return cls(step, dict(cells))

    @classmethod
    def parse(cls, line: str, names: list[str]) -> Row:
        """Return the row of a line of CSV without its end; ValueError if it is no row with these columns."""
        step, *cells = line.split(",")
        if not step.isascii() or not step.isdecimal() or len(cells) != len(names):
            raise ValueError(f"{line[:60]!r} is not a row of {','.join([STEP, *names])[:60]!r}")
        return cls(int(step), {name: _number(cell) for name, cell in zip(names, cells, strict=True)})

    @property
    def header(self) -> str:
        """The first line of a file of such rows."""
        return ",".join([STEP, *self.values]) + "\n"

    @property
    def line(self) -> str:
        """The row as a line of CSV: floats have the fewest digits that give the same float."""
        return ",".join([str(self.step), *map(text_of, self.values.values())]) + "\n"

    @property
    def kinds(self) -> dict[str, str]:
        """The type of each column: bool, int or float."""
        return {name: type(value).__name__ for name, value in self.values.items()}


def text_of(value: Number) -> str:
    """Return a number as text, from which it can be read back."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _number(text: str) -> Number:
    if text in ("true", "false"):
        return text == "true"
    value = int(text) if _WHOLE.fullmatch(text) else float(text)
    if text_of(value) != text:
        raise ValueError(f"{text!r} is not written as the series writes numbers: {text_of(value)}")
    return value


def _cells(name: Any, value: Any) -> Iterator[tuple[str, Number]]:
    """Yield the columns of a value: one, or one for each element of a vector."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"observe returned the name {_short(name)}, but a name must be text without commas, quotes, slashes and "
            "line ends. Rename it."
        )
    array = _array(value)
    if array is None or array.dtype.kind not in "biuf" or array.dtype.itemsize > 8 or array.ndim > 1:
        raise ValueError(
            f"observe returned {name} = {_short(value)}, but a value must be a bool, an int or float of 64 bits, or a "
            "vector of them. Return a number, such as exact.mean(state.T)."
        )
    if array.size > MOST_COLUMNS:
        raise ValueError(
            f"observe returned {name} with {array.size} values, but a row has at most {MOST_COLUMNS}. Return sums, "
            "means or extremes."
        )
    for number in array.ravel().tolist():
        if not -_LARGEST <= number < _LARGEST and isinstance(number, int):
            raise ValueError(f"observe returned {name} = {number}, which needs more than 64 bits. Return a float.")
    if array.ndim == 0:
        yield name, array.item()
    else:
        yield from ((f"{name}[{k}]", number) for k, number in enumerate(array.tolist()))


def _array(value: Any) -> np.ndarray | None:
    """Return a value as an array of numbers, None if it has another type."""
    if not isinstance(value, bool | int | float | np.generic | np.ndarray | list | tuple):
        return None
    try:
        return np.asarray(value)
    except (ValueError, OverflowError):  # lists of different lengths
        return None


def _short(value: Any) -> str:
    text = repr(value).partition("\n")[0]
    return text if len(text) <= 60 else f"{text[:60]}…"
