"""Table files of arrays: HDF5 with a dataset per column or a dataset of rows, and structured `.npy` files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from anyrank.errors import UsageError
from anyrank.keyed.arrays import map_npy
from anyrank.keyed.hdf5_extents import check_stored, chunk_bytes
from anyrank.keyed.reader_process import call
from anyrank.keyed.rows import Text
from anyrank.keyed.tables.dialect import CsvOptions
from anyrank.keyed.tables.source import BadRows, Rows, TableFile, rows_of_size
from anyrank.keyed.types import array_of, arrow, canonical, to_type

#: The most bytes of the cache of chunks, and the first guess of the bytes of a text of variable length.
_CACHE_BYTES, _TEXT_BYTES = 1 << 26, 1 << 13


class Hdf5File(TableFile):
    """HDF5 files: one-dimensional datasets are columns; column `log/user` is dataset `user` of group `log`.

    The fields of a dataset of structured rows, as PyTables writes them, are columns, too: `log/events.user`.
    """

    suffixes = (".h5", ".hdf5")
    isolated = True

    def __init__(self, path: Path, size: int, options: CsvOptions):
        super().__init__(path, size, options)
        self.types = {}
        #: Columns of text of variable length. A damaged one can crash HDF5, so a child process reads them.
        self.variable: set[str] = set()

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.ndim == 1:
                fields = item.dtype.names
                for field, dtype in (
                    [(f"{name}.{f}", item.dtype[f]) for f in fields] if fields else [(name, item.dtype)]
                ):
                    self.types[field] = _type_of(dtype)
                    if item.dtype.hasobject:
                        self.variable.add(field)

        with h5py.File(path, locking=False) as file:
            file.visititems(visit)
        self.nullable = {name for name, type_ in self.types.items() if str(type_).startswith("timestamp")}

    def examine(self, columns: Collection[str]) -> None:
        """Check that the chunks are in the file, and that most rows are stored."""
        with h5py.File(self.path, locking=False) as file:
            datasets = [_dataset(file, name)[0] for name in columns if name in self.types]
            for dataset in datasets:
                check_stored(self.path, dataset)
            self.decoded = max((chunk_bytes(dataset) for dataset in datasets), default=0)

    def read(self, begin: int, end: int, types: Mapping[str, Any], bad: BadRows) -> Iterator[Rows]:
        """Yield the same rows of all datasets. Raises UsageError if their lengths differ."""
        batches = self._batches(begin, end, types)
        if self.variable & types.keys():
            batches = call([self.path], self._batches, begin, end, types)
        for first, batch in batches:
            yield Rows(self.path, batch, first)

    def _batches(self, begin: int, end: int, types: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
        with h5py.File(self.path, locking=False, rdcc_nbytes=min(max(1 << 20, self.decoded), _CACHE_BYTES)) as file:
            columns = {name: _dataset(file, name) for name in types}
            sizes = {name: len(column) for name, (column, _) in columns.items()}
            if len({*sizes.values()}) > 1:
                raise UsageError(f"{self.path}: columns must have the same length, but have {sizes}. Use others.")
            first, last = self.rows_within(begin, end, min(sizes.values(), default=0))
            widest = max((column.dtype.itemsize for column, _ in columns.values()), default=1)
            rows = rows_of_size(_TEXT_BYTES if self.variable & types.keys() else widest)
            while first < last:
                batch = {
                    name: from_numpy(column[first : min(first + rows, last)][field or ()], types[name])
                    for name, (column, field) in columns.items()
                }
                yield first, batch
                first += rows
                longest = max(array.nbytes for array in batch.values()) // rows + 1
                rows = min(2 * rows, rows_of_size(max(widest, longest)))


def _dataset(file: Any, name: str) -> tuple[Any, str]:
    """Return the dataset of a column, and the field of its rows, if it has fields."""
    if name in file:
        return file[name], ""
    dataset, _, field = name.rpartition(".")
    return file[dataset], field


class NpyFile(TableFile):
    """Structured one-dimensional arrays; the fields are the columns."""

    suffixes = (".npy",)

    def __init__(self, path: Path, size: int, options: CsvOptions):
        super().__init__(path, size, options)
        dtype, shape = map_npy(path).dtype, map_npy(path).shape
        if dtype.names is None or len(shape) != 1:
            raise UsageError(
                f"{path}: an array of {dtype} with shape {shape} is not a table: it needs one axis and fields. Save a "
                "structured array."
            )
        self.types = {name: _type_of(dtype[name]) for name in dtype.names}
        self.nullable = {
            name for name, type_ in self.types.items() if str(type_).startswith(("timestamp", "date", "dur"))
        }

    def read(self, begin: int, end: int, types: Mapping[str, Any], bad: BadRows) -> Iterator[Rows]:
        """Yield batches of rows. A new memory map each time, because pages of a map count as memory of the process."""
        array = map_npy(self.path)
        first, last = self.rows_within(begin, end, len(array))
        rows = rows_of_size(array.itemsize)
        for row in range(first, last, rows):
            batch = map_npy(self.path)[row : min(row + rows, last)]
            yield Rows(self.path, {n: from_numpy(np.array(batch[n]), type_) for n, type_ in types.items()}, row)


def _type_of(dtype: np.dtype[Any]) -> Any:
    """Return the type of an array's elements, or the name of the dtype if it has none."""
    pa = arrow()
    if h5py.check_string_dtype(dtype) is not None or dtype.kind in "SU":
        return pa.large_binary()
    if dtype.kind in "Mm":
        unit, count = np.datetime_data(dtype)
        if dtype.kind == "M" and unit in "YMWD":
            return pa.date32()
        kind = pa.timestamp if dtype.kind == "M" else pa.duration
        return (
            kind(unit) if unit in ("s", "ms", "us", "ns") and count == 1 else kind("s") if unit in "hm" else str(dtype)
        )
    if dtype.shape or dtype.kind not in "iubf" or dtype.itemsize > 8:
        return str(dtype)
    return canonical(pa.from_numpy_dtype(dtype.newbyteorder("=")))


def from_numpy(array: np.ndarray, type_: Any) -> Any:
    """Convert a one-dimensional array to an Arrow array of a type. Raises an ArrowInvalid if a value does not fit."""
    pa = arrow()
    if array.dtype.kind == "O":
        return array_of(Text.of(array.tolist()), None, type_)
    if array.dtype.kind in "SU":
        fixed = np.ascontiguousarray(np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array)
        sizes = np.char.str_len(fixed).astype(np.int64)
        data = fixed.view(np.uint8).reshape(len(fixed), fixed.itemsize)
        return array_of(Text.sized(data[np.arange(fixed.itemsize) < sizes[:, None]], sizes), None, type_)
    if array.dtype.kind in "Mm":
        nulls = np.isnat(array)
        unit = "D" if pa.types.is_date(type_) else type_.unit
        whole = array.astype(f"{array.dtype.kind}8[{unit}]")
        if (whole[~nulls].astype(array.dtype) != array[~nulls]).any():
            raise ValueError(f"a time does not fit into {type_}")
        return array_of(whole.view(np.int64), nulls if nulls.any() else None, type_)
    return to_type(pa.array(np.ascontiguousarray(array, array.dtype.newbyteorder("="))), type_)
