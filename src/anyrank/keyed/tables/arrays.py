"""Tables of arrays: HDF5 files with a dataset of one axis for each column, and structured `.npy` files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from anyrank.errors import UsageError
from anyrank.keyed.tables.source import BadRows, Piece, Rows, Source
from anyrank.keyed.values import kind_of, of_numpy


class Hdf5(Source):
    """Datasets of one axis; the column `log/user` is the dataset `user` of the group `log`."""

    suffixes = (".h5", ".hdf5")

    @staticmethod
    def kinds(path: Path) -> dict[str, str]:
        """Every dataset of one axis."""
        result = {}

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.ndim == 1:
                text = h5py.check_string_dtype(item.dtype) is not None
                result[name] = kind_of(item.dtype) if text or item.dtype.kind != "O" else "objects"

        with h5py.File(path) as file:
            file.visititems(visit)
        return result

    @staticmethod
    def read(piece: Piece, wanted: Mapping[str, str], bad: BadRows) -> Iterator[Rows]:
        """The same rows of all datasets; UsageError where they are not of one length."""
        with h5py.File(piece.path) as file:
            columns = {name: file[name] for name in wanted}
            sizes = {name: len(column) for name, column in columns.items()}
            if len({*sizes.values()}) > 1:
                raise UsageError(f"{piece.path}: columns of a table have one length, not {sizes}.")
            for first, last in piece.rows(min(sizes.values(), default=0)):
                yield Rows(piece.path, {n: of_numpy(c[first:last]) for n, c in columns.items()}, first)


class Npy(Source):
    """Structured arrays of one axis; fields are the columns."""

    suffixes = (".npy",)

    @staticmethod
    def kinds(path: Path) -> dict[str, str]:
        """The fields; UsageError where there are none."""
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.dtype.names is None or array.ndim != 1:
            raise UsageError(
                f"{path}: an array of {array.dtype} with shape {array.shape} is no table: it needs fields."
            )
        fields = {name: array.dtype[name] for name in array.dtype.names}
        return {name: str(field) if field.shape else kind_of(field) for name, field in fields.items()}

    @staticmethod
    def nullable(path: Path) -> set[str]:
        """Those of times, which may be NaT."""
        return {name for name, kind in Npy.kinds(path).items() if kind in ("timestamp", "date")}

    @staticmethod
    def read(piece: Piece, wanted: Mapping[str, str], bad: BadRows) -> Iterator[Rows]:
        """Some rows at a time, of a new map each: else what was read counts as memory of the process."""
        for first, last in piece.rows(len(np.load(piece.path, mmap_mode="r"))):
            some = np.load(piece.path, mmap_mode="r")[first:last]
            yield Rows(piece.path, {name: of_numpy(np.array(some[name])) for name in wanted}, first)
