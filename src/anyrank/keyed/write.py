"""Writing columns: one file, in the order of the ranks, whose bytes do not depend on them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from anyrank.keyed.rows import Column, Text, count
from anyrank.keyed.schema import unify_columns
from anyrank.storage.durable import Piece, write_collectively
from anyrank.storage.hdf5 import contiguous
from anyrank.world import World

#: Rows that become text at a time: Python takes a hundred bytes and more for each.
_ROWS = 1 << 12
#: Text is padded to its longest element in HDF5 up to so many bytes.
PADDED = 256


def write_csv(world: World, path: Path, columns: Mapping[str, Column]) -> Path:
    """Write the rows of all ranks, those of rank 0 first, as CSV with a line of names; RFC 4180, UTF-8. Collective.

    Numbers are written so that they are read back with every bit, masked ones as nothing, bytes that are no UTF-8 as
    escapes. Raises AnyrankError on all ranks where it cannot be written; then nothing has changed.
    """
    columns = unify_columns(world, columns)
    parts = [*_lines(columns)] if world.rank else [lines_of([columns]), *_lines(columns)]
    sizes = world.comm.allgather(sum(map(len, parts)))
    at = sum(sizes[: world.rank])

    def pieces() -> Iterator[Piece]:
        place = at
        for part in parts:
            yield place, memoryview(part)
            place += len(part)

    return write_collectively(world, path, lambda temporary: temporary.write_bytes(b""), lambda _: pieces())


def _lines(columns: Mapping[str, Column]) -> Iterator[bytes]:
    for first in range(0, count(columns), _ROWS):
        rows = slice(first, first + _ROWS)
        yield lines_of(zip(*(_cells(column[rows]) for column in columns.values()), strict=True))


def lines_of(rows: Iterable[Iterable[Any]]) -> bytes:
    """Return rows as lines of CSV, in UTF-8. Not collective."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _cells(column: Column) -> list[Any]:
    """The elements as the csv module writes them: floats by their shortest digits, None as nothing."""
    if isinstance(column, Text):
        return column.strings()
    if column.dtype.kind == "S":
        return [value.decode(errors="backslashreplace") for value in column.tolist()]
    return [str(value) for value in column] if column.dtype.kind == "M" else column.tolist()


def write_hdf5(world: World, path: Path, columns: Mapping[str, Column], **attributes: Any) -> Path:
    """Write the rows of all ranks, those of rank 0 first, as HDF5: a dataset for each column. Collective.

    Text is of a fixed length, padded with zeros, where no element has more than PADDED bytes; else the bytes of all,
    and their sizes beside them as NAME_size. Masked numbers are NaN. Raises AnyrankError as `write_csv` does.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, column in unify_columns(world, columns).items():
        arrays |= _array(world, name, column)
    counts = {name: world.comm.allgather(len(array)) for name, array in arrays.items()}

    def lay_out(temporary: Path) -> dict[str, int]:
        with h5py.File(temporary, "w", locking=False) as file:
            file.attrs.update(attributes)
            made = {
                name: contiguous(file, name, (sum(counts[name]), *array.shape[1:]), _kind(array.dtype))
                for name, array in arrays.items()
            }
            return {name: dataset.id.get_offset() or 0 for name, dataset in made.items()}

    def pieces(offsets: dict[str, int]) -> Iterator[Piece]:
        for name, array in arrays.items():
            row = array.dtype.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            yield offsets[name] + sum(counts[name][: world.rank]) * row, data

    return write_collectively(world, path, lay_out, pieces)


def _kind(dtype: np.dtype[Any]) -> Any:
    return h5py.string_dtype("utf-8", dtype.itemsize) if dtype.kind == "S" else dtype


def _array(world: World, name: str, column: Column) -> dict[str, np.ndarray]:
    if isinstance(column, np.ma.MaskedArray):
        return {name: np.ma.filled(column.astype(np.float64), np.nan)}
    if not isinstance(column, Text):
        return {name: column.astype(np.int64) if column.dtype.kind == "M" else column}
    longest = int(world.allreduce(np.array([column.sizes.max(initial=1)]), "max")[0])
    if longest > PADDED:
        return {name: column.data, f"{name}_size": column.sizes}
    rows = np.zeros((len(column), longest), np.uint8)
    rows[np.arange(longest) < column.sizes[:, None]] = column.data
    return {name: rows.view(f"S{longest}").reshape(-1)}
