"""Write columns to one file in the order of the ranks; the bytes do not depend on the number of ranks."""

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

#: Rows converted to text at a time: Python takes over a hundred bytes for each element.
_ROWS = 1 << 12
#: In HDF5, text is padded to its longest element if that has at most this number of bytes.
PADDED = 256


def write_csv(world: World, path: Path, columns: Mapping[str, Column]) -> Path:
    """Write the rows of all ranks as CSV (RFC 4180, UTF-8) with a header line. Collective.

    Floating-point numbers are written with all digits needed to read back the same bits, masked values as empty
    fields, and bytes that are not valid UTF-8 as escapes.

    Parameters
    ----------
    world : World
        The ranks that hold the rows. The file has the rows of rank 0 first.
    path : Path
        The file to write.
    columns : mapping of str to array or Text
        This rank's rows; all ranks must have the same names and types.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    AnyrankError
        On all ranks, if the file cannot be written; an existing file is then unchanged.

    Examples
    --------
    >>> keyed.write_csv(World(), Path("rows.csv"), {"x": np.array([1, 2])}).read_text().split()
    ['x', '1', '2']
    """
    columns = unify_columns(world, columns)
    parts = [*_lines(columns)] if world.rank else [lines_of([columns]), *_lines(columns)]
    sizes = world.comm.allgather(sum(map(len, parts)))
    start = sum(sizes[: world.rank])

    def pieces() -> Iterator[Piece]:
        offset = start
        for part in parts:
            yield offset, memoryview(part)
            offset += len(part)

    return write_collectively(world, path, lambda temporary: temporary.write_bytes(b""), lambda _: pieces())


def _lines(columns: Mapping[str, Column]) -> Iterator[bytes]:
    for first in range(0, count(columns), _ROWS):
        rows = slice(first, first + _ROWS)
        yield lines_of(zip(*(_cells(column[rows]) for column in columns.values()), strict=True))


def lines_of(rows: Iterable[Iterable[Any]]) -> bytes:
    """Return rows as lines of CSV in UTF-8. Not collective."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _cells(column: Column) -> list[Any]:
    """Return the elements for the csv module, which writes floats with the fewest exact digits and None as empty."""
    if isinstance(column, Text):
        return column.strings()
    if column.dtype.kind == "S":
        return [value.decode(errors="backslashreplace") for value in column.tolist()]
    return [str(value) for value in column] if column.dtype.kind == "M" else column.tolist()


def write_hdf5(world: World, path: Path, columns: Mapping[str, Column], **attributes: Any) -> Path:
    """Write the rows of all ranks as HDF5, one dataset per column. Collective.

    Text becomes fixed-length strings padded with zeros if no element has more than PADDED bytes; otherwise dataset
    NAME has the concatenated bytes and NAME_size the sizes. Masked numbers are written as NaN.

    Parameters
    ----------
    world, path, columns
        See `write_csv`, also for the result and the errors.
    **attributes
        The attributes of the file.

    Returns
    -------
    Path
        `path`.

    Examples
    --------
    >>> keyed.write_hdf5(World(), Path("rows.h5"), {"x": np.array([1, 2])}, unit="m").name
    'rows.h5'
    """
    arrays: dict[str, np.ndarray] = {}
    for name, column in unify_columns(world, columns).items():
        arrays |= _array(world, name, column)
    counts = {name: world.comm.allgather(len(array)) for name, array in arrays.items()}

    def lay_out(temporary: Path) -> dict[str, int]:
        with h5py.File(temporary, "w", locking=False) as file:
            file.attrs.update(attributes)
            datasets = {
                name: contiguous(file, name, (sum(counts[name]), *array.shape[1:]), _kind(array.dtype))
                for name, array in arrays.items()
            }
            return {name: dataset.id.get_offset() or 0 for name, dataset in datasets.items()}

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
