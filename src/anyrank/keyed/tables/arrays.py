"""Table files of arrays: HDF5 with a one-dimensional dataset per column, and structured `.npy` files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from anyrank.errors import UsageError
from anyrank.keyed.tables.source import BadRows, Rows, TablePiece, TableSource
from anyrank.keyed.values import kind_of, of_numpy


class Hdf5(TableSource):
    """HDF5 files: one-dimensional datasets are columns; column `log/user` is dataset `user` of group `log`."""

    suffixes = (".h5", ".hdf5")

    @staticmethod
    def kinds(path: Path) -> dict[str, str]:
        """Return the kind of every one-dimensional dataset."""
        result = {}

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.ndim == 1:
                text = h5py.check_string_dtype(item.dtype) is not None
                result[name] = kind_of(item.dtype) if text or item.dtype.kind != "O" else "objects"

        with h5py.File(path) as file:
            file.visititems(visit)
        return result

    @staticmethod
    def read(piece: TablePiece, wanted: Mapping[str, str], bad: BadRows) -> Iterator[Rows]:
        """Yield the same rows of all datasets. Raises UsageError if their lengths differ."""
        with h5py.File(piece.path) as file:
            columns = {name: file[name] for name in wanted}
            sizes = {name: len(column) for name, column in columns.items()}
            if len({*sizes.values()}) > 1:
                raise UsageError(f"{piece.path}: columns must have the same length, but have {sizes}. Use others.")
            for first, last in piece.rows(min(sizes.values(), default=0)):
                yield Rows(piece.path, {n: of_numpy(c[first:last]) for n, c in columns.items()}, first)


class Npy(TableSource):
    """Structured one-dimensional arrays; the fields are the columns."""

    suffixes = (".npy",)

    @staticmethod
    def kinds(path: Path) -> dict[str, str]:
        """Return the kinds of the fields. Raises UsageError if the array has no fields."""
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.dtype.names is None or array.ndim != 1:
            raise UsageError(
                f"{path}: an array of {array.dtype} with shape {array.shape} is not a table: it needs one axis and "
                "fields. Save a structured array."
            )
        fields = {name: array.dtype[name] for name in array.dtype.names}
        return {name: str(field) if field.shape else kind_of(field) for name, field in fields.items()}

    @staticmethod
    def nullable(path: Path) -> set[str]:
        """Return the columns of times, which may be NaT."""
        return {name for name, kind in Npy.kinds(path).items() if kind in ("timestamp", "date")}

    @staticmethod
    def read(piece: TablePiece, wanted: Mapping[str, str], bad: BadRows) -> Iterator[Rows]:
        """Yield batches of rows. A new memory map each time, because pages of a map count as memory of the process."""
        for first, last in piece.rows(len(np.load(piece.path, mmap_mode="r"))):
            batch = np.load(piece.path, mmap_mode="r")[first:last]
            yield Rows(piece.path, {name: of_numpy(np.array(batch[name])) for name in wanted}, first)
