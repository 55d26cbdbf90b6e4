"""The datasets of columns in HDF5."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import h5py
import numpy as np

from anyrank.keyed.cells import cells_of
from anyrank.keyed.rows import Text
from anyrank.keyed.schema import unify_arrays
from anyrank.keyed.types import arrow, is_text, values_of
from anyrank.world import World

#: In HDF5, text is padded to its longest element if that has at most this number of bytes.
PADDED = 256


class Hdf5Layout:
    """The datasets of columns in HDF5. All blocks of all ranks decide on their types. The constructor is collective.

    Times and decimals are text. Integers of 128 bits are int64 if all of them fit, and otherwise text. Beside a column
    with nulls that has no NaN is NAME_null.
    """

    def __init__(self, world: World, blocks: Callable[[], Iterator[Mapping[str, Any]]]):
        self._world, self._blocks = world, blocks
        largest: dict[str, list[int]] = {}
        count, rows, sizes = 0, 0, dict[str, int]()
        for block in blocks():
            count += 1
            columns, self._texts = unify_arrays(world, block), dict[str, Text]()
            rows += len(next(iter(columns.values()), ()))
            for name, column in columns.items():
                facts = self._facts(name, column)
                largest[name] = [*map(max, facts, largest.get(name, facts))]
                sizes[name] = sizes.get(name, 0) + (len(self._texts[name].data) if name in self._texts else 0)
        if count > 1:
            self._texts = {}  # only the text of a single block is kept
        self._empty = {name: column[:0] for name, column in columns.items()}
        agreed = world.allreduce(np.array([*largest.values()], np.int64).reshape(-1, 3), "max").tolist()
        self._agreed = dict(zip(largest, agreed, strict=True))
        self._rows, *totals = world.allreduce(np.array([rows, *sizes.values()], np.int64)).tolist()
        self._sizes = dict(zip(sizes, totals, strict=True))

    def _facts(self, name: str, column: Any) -> list[int]:
        """Return whether a column has nulls, whether integers exceed 64 bits, and the bytes of the longest text."""
        if not isinstance(column, arrow().Array):
            if isinstance(column, Text):
                self._texts[name] = _without_final_zeros(column)
                return [0, 0, int(self._texts[name].sizes.max(initial=1))]
            return [isinstance(column, np.ma.MaskedArray), 0, 0]
        if _is_integer(column.type):
            ends = [int(end) for end in arrow("compute").min_max(column).as_py().values() if end is not None]
            large = any(not -(1 << 63) <= end < 1 << 63 for end in ends)
            return [column.null_count > 0, large, max([1, *(len(str(end)) for end in ends)])]
        if not _is_number(column.type):
            self._texts[name] = _without_final_zeros(_text_of(column))
            return [column.null_count > 0, 0, int(self._texts[name].sizes.max(initial=1))]
        return [column.null_count > 0, 0, 0]

    def datasets(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Return the shape and the type of each dataset. Not collective."""
        result = {}
        for name, array in self._arrays(self._empty, {}).items():
            long = self._agreed.get(name, [0, 0, 0])[2] > PADDED
            result[name] = ((self._sizes[name] if long else self._rows, *array.shape[1:]), _kind(array.dtype))
        return result

    def arrays(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield this rank's part of the datasets of each block. Collective."""
        for block in self._blocks():
            yield self._arrays(unify_arrays(self._world, block), self._texts)

    def _arrays(self, columns: Mapping[str, Any], texts: Mapping[str, Text]) -> dict[str, np.ndarray]:
        result: dict[str, np.ndarray] = {}
        for name, column in columns.items():
            nulls, large, longest = self._agreed[name]
            is_arrow = isinstance(column, arrow().Array)
            if isinstance(column, Text) or (is_arrow and (large or not _is_number(column.type))):
                text = texts[name] if name in texts else _without_final_zeros(_text_of(column))
                result |= _padded(name, text, longest)
            elif is_arrow:
                column = column.cast(arrow().int64()) if _is_integer(column.type) else column
                result[name] = np.asarray(values_of(column, column.type).values)
            else:
                filled = np.ma.filled(column.astype(np.float64), np.nan) if nulls else column
                result[name] = filled.astype(np.int64) if filled.dtype.kind == "M" else filled
            if is_arrow and nulls:
                mask = np.asarray(column.is_null())
                if arrow().types.is_floating(column.type):
                    result[name] = np.where(mask, np.nan, result[name])
                else:
                    result[f"{name}_null"] = mask
        return result


def _is_integer(type_: Any) -> bool:
    """Return whether values are integers of up to 128 bits."""
    return bool(arrow().types.is_decimal(type_)) and type_.scale == 0


def _is_number(type_: Any) -> bool:
    """Return whether HDF5 has numbers for these values."""
    types = arrow().types
    return bool(_is_integer(type_) or types.is_floating(type_) or types.is_integer(type_) or types.is_boolean(type_))


def _text_of(column: Any) -> Text:
    if isinstance(column, Text):
        return column
    column = column if is_text(column.type) else cells_of(column).cast(arrow().large_binary())
    return cast(Text, values_of(column, column.type).values)


def _kind(dtype: np.dtype[Any]) -> Any:
    return h5py.string_dtype("utf-8", dtype.itemsize) if dtype.kind == "S" else dtype


def _padded(name: str, column: Text, longest: int) -> dict[str, np.ndarray]:
    """Return text as rows of `longest` bytes, or the bytes and the sizes of long text."""
    if longest > PADDED:
        return {name: column.data, f"{name}_size": column.sizes}
    rows = np.zeros((len(column), longest), np.uint8)
    rows[np.arange(longest) < column.sizes[:, None]] = column.data
    return {name: rows.view(f"S{longest}").reshape(-1)}


def _without_final_zeros(column: Text) -> Text:
    """Return text with escapes for the zero bytes at its end, which padding with zeros would remove."""
    ends = column.offsets[1:][column.sizes > 0] - 1
    return Text.of([_escape_zeros(text) for text in column.tolist()]) if (column.data[ends] == 0).any() else column


def _escape_zeros(text: bytes) -> bytes:
    kept = text.rstrip(b"\0")
    return kept + rb"\x00" * (len(text) - len(kept))
