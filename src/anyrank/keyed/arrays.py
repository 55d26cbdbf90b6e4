"""Rows in array files: a one-dimensional `.npy` array, or HDF5 datasets of equal length in one group.

Every rank reads rows by row number. One rank creates the output file, and every rank writes its rows at their offsets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from anyrank.errors import AnyrankError, UsageError
from anyrank.keyed.sort_keys import SUPPORTED, sortable
from anyrank.storage.durable import reserve, write_all
from anyrank.storage.hdf5 import contiguous

Arrays = dict[str, NDArray[Any]]
#: The column name for the array of a .npy file.
ARRAY = "array"
_HDF5 = (".h5", ".hdf5")


@dataclass(frozen=True)
class ArrayFile:
    """Description of an array file: number of rows, dtype of each column, name of the key column.

    A .npy file has one column; for a structured dtype, `key` is a field name. `group` is the HDF5 group.
    """

    path: Path
    rows: int
    types: dict[str, np.dtype[Any]]
    key: str
    group: str = ""

    @property
    def row_bytes(self) -> int:
        """Bytes per row."""
        return sum(dtype.itemsize for dtype in self.types.values())

    @property
    def key_type(self) -> np.dtype[Any]:
        """The dtype of the keys."""
        return self.types[self.key] if self.group else _key_type(self.types[ARRAY], self.key)

    @property
    def fingerprint(self) -> int:
        """Signed 64-bit hash of the file name (without folder), its layout and the key."""
        kinds = {name: dtype.descr for name, dtype in self.types.items()}
        identity = repr((self.path.name, self.rows, kinds, self.key, self.group))
        return int.from_bytes(blake2b(identity.encode(), digest_size=8).digest(), "little", signed=True)

    def read(self, first: int, last: int) -> tuple[NDArray[Any], Arrays]:
        """Read rows `first` to `last`: the keys, and the other columns by name. Not collective.

        Records are returned as untyped bytes. Raises AnyrankError if the file cannot be read or has become shorter.
        """
        try:
            columns = self._read_hdf5(first, last) if self.group else {ARRAY: self._read_npy(first, last)}
        except OSError as error:
            raise AnyrankError(f"--input {self.path} can no longer be read on this rank ({error}).") from None
        if any(len(column) != last - first for column in columns.values()):
            raise AnyrankError(f"--input {self.path} became shorter while it was read: it had {self.rows} rows.")
        keys = columns[self.key] if self.group else columns[ARRAY][self.key] if self.key else columns[ARRAY]
        others = {name: _plain(column) for name, column in columns.items() if keys is not column}
        return np.ascontiguousarray(keys), others

    def _read_npy(self, first: int, last: int) -> NDArray[Any]:
        dtype = self.types[ARRAY]
        offset = self._data_offset + first * dtype.itemsize
        return np.fromfile(self.path, dtype, last - first, offset=offset)

    @cached_property
    def _data_offset(self) -> int:
        """The offset of the first row in a .npy file, after the header."""
        return _extents(self.path)[ARRAY]

    def _read_hdf5(self, first: int, last: int) -> Arrays:
        with h5py.File(self.path, "r", locking=False) as file:
            return {name: file[self.group][name][first:last] for name in self.types}

    def columns(self, keys: NDArray[Any], others: Mapping[str, NDArray[Any]]) -> Arrays:
        """Return keys and other columns, as `read` returns them, as the columns of a file."""
        if not self.group:
            return {ARRAY: others.get(ARRAY, keys)}
        return {name: keys if name == self.key else others[name] for name in self.types}

    def lay_out(self, path: Path) -> None:
        """Create a file of the same format and number of rows, with undefined values. Raises OSError."""
        types = {name: dtype if dtype.names else dtype.newbyteorder("=") for name, dtype in self.types.items()}
        if self.group:
            with h5py.File(path, "w", locking=False) as file:
                group = file.require_group(self.group)
                for name, dtype in types.items():
                    contiguous(group, name, (self.rows,), dtype)
        else:
            with path.open("wb") as plain:
                header = {"descr": np.lib.format.dtype_to_descr(types[ARRAY]), "fortran_order": False}
                np.lib.format.write_array_header_2_0(plain, {**header, "shape": (self.rows,)})
                plain.truncate(plain.tell() + self.rows * self.row_bytes)
        with path.open("r+b") as plain:
            reserve(plain.fileno(), path.stat().st_size)

    def extents(self, path: Path) -> dict[str, int]:
        """Return the byte offset of each column in a file created by `lay_out`. Raises OSError."""
        return _extents(path, self.group, tuple(self.types))


def _plain(column: NDArray[Any]) -> NDArray[Any]:
    """Return the column in native byte order, or records as untyped bytes, so that their byte order stays."""
    if column.dtype.names:
        return np.ascontiguousarray(column).view(f"V{column.itemsize}")
    return column.astype(column.dtype.newbyteorder("="), copy=False)


def _extents(path: Path, group: str = "", names: tuple[str, ...] = ()) -> dict[str, int]:
    if group:
        with h5py.File(path, "r", locking=False) as file:
            return {name: int(file[group][name].id.get_offset() or 0) for name in names}
    return {ARRAY: np.load(path, mmap_mode="r", allow_pickle=False).offset}


def write(descriptor: int, column: NDArray[Any], offset: int) -> None:
    """Write the elements of a column at a byte offset of a file. Raises OSError."""
    write_all(descriptor, memoryview(np.ascontiguousarray(column).view(np.uint8)), offset)  # type: ignore[arg-type]


def describe_array_file(name: str, key: str) -> ArrayFile:
    """Describe the table that `--input` names: FILE.npy, FILE.h5, FILE.h5:/GROUP, or FILE.h5:/GROUP/KEY for one column.

    `--key` names the key field or dataset. Not collective. Raises UsageError if the file or the key does not exist.
    """
    path, inner = Path(name), ""
    for suffix in _HDF5:
        file, colon, rest = name.rpartition(f"{suffix}:")
        if colon:
            path, inner = Path(file + suffix), rest
    try:
        path.open("rb").close()
    except OSError as error:
        raise UsageError(f"--input {path} cannot be read ({error.strerror}). Name a .npy or .h5 file.") from None
    if path.suffix != ".npy" and path.suffix not in _HDF5:
        raise UsageError(f"--input {path} must end in .npy, .h5 or .hdf5. Save it as one of these.")
    try:
        table = _find_npy(path, key) if path.suffix == ".npy" else _find_hdf5(path, inner, key)
    except (OSError, ValueError) as error:
        raise UsageError(f"--input {path} is not a valid {path.suffix} file ({error}). Name another file.") from None
    if not sortable(table.key_type):
        raise UsageError(f"--input {path}: keys of {table.key_type} cannot be sorted. Use {SUPPORTED}.")
    return table


def _find_npy(path: Path, key: str) -> ArrayFile:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    _check(path, ARRAY, array)
    fields = array.dtype.names or ()
    if key not in (fields or ("",)):
        fix = f"--key {' or '.join(fields)}" if fields else "no --key: it has no fields"
        raise UsageError(f"--input {path} has no field {key!r}. Use {fix}.")
    return ArrayFile(path, len(array), {ARRAY: array.dtype}, key)


def _key_type(dtype: np.dtype[Any], key: str) -> np.dtype[Any]:
    return dtype[key] if key else dtype


def _find_hdf5(path: Path, inner: str, key: str) -> ArrayFile:
    with h5py.File(path, "r", locking=False) as file:
        inner = inner or "/"
        if inner not in file:
            raise UsageError(f"--input {path} has no {inner}. It has {', '.join(file) or 'nothing'}.")
        item = file[inner]
        alone = isinstance(item, h5py.Dataset)
        group = item.parent if alone else item
        key = item.name.rpartition("/")[2] if alone and not key else key
        columns = {name: item for name, item in group.items() if isinstance(item, h5py.Dataset)}
        if not key and len(columns) == 1:
            key = next(iter(columns))
        if key not in columns:
            raise UsageError(
                f"--input {path}: {group.name} has no dataset {key!r}. "
                f"Use --key with one of {', '.join(columns) or 'none: it has no datasets'}."
            )
        if alone:
            columns = {key: columns[key]}
        for name, column in columns.items():
            _check(path, f"{group.name.rstrip('/')}/{name}", column)
            if len(column) != len(columns[key]):
                raise UsageError(
                    f"--input {path}: {name} has {len(column)} rows, and the key {key} has {len(columns[key])}; all "
                    "datasets must have the same length. Move it to another group, or sort only "
                    f"{path}:{group.name.rstrip('/')}/{key}."
                )
        return ArrayFile(path, len(columns[key]), {n: c.dtype for n, c in columns.items()}, key, group.name)


def _check(path: Path, name: str, array: Any) -> None:
    if array.ndim != 1:
        raise UsageError(f"--input {path}: {name} has {array.ndim} axes; it must have one. Reshape it.")
    if array.dtype.hasobject:
        raise UsageError(
            f"--input {path}: {name} holds objects or variable-length text. Use numbers or fixed-length bytes."
        )
