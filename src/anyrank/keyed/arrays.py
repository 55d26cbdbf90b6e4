"""Rows in array files: a one-dimensional `.npy` array, or HDF5 datasets of equal length in one group.

A row of a dataset with several axes is its part at one index of the first axis.

Every rank reads rows by row number. One rank creates the output file, and every rank writes its rows at their offsets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from tokenize import TokenError
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from anyrank.errors import AnyrankError, UsageError
from anyrank.keyed.hdf5_extents import check_stored
from anyrank.keyed.reader_process import call
from anyrank.keyed.sort_keys import SUPPORTED, sortable
from anyrank.storage.durable import reserve, write_all
from anyrank.storage.hdf5 import contiguous

Arrays = dict[str, NDArray[Any]]
#: The column name for the array of a .npy file.
ARRAY = "array"
_HDF5 = (".h5", ".hdf5")
#: The errors of NumPy, HDF5 and h5py for files that are damaged.
_READ_ERRORS = (OSError, ValueError, RuntimeError, LookupError, EOFError, TypeError, MemoryError)


@dataclass(frozen=True)
class ArrayFile:
    """Description of an array file: number of rows, dtype of a row of each column, and the key.

    A .npy file has one column. `key` is the column with the keys, or if `records` is the name of a column with fields,
    one of its fields. `group` is the HDF5 group.
    """

    path: Path
    rows: int
    types: dict[str, np.dtype[Any]]
    key: str
    group: str = ""
    records: str = ""

    @property
    def row_bytes(self) -> int:
        """Bytes per row."""
        return sum(dtype.itemsize for dtype in self.types.values())

    @property
    def key_type(self) -> np.dtype[Any]:
        """The dtype of the keys."""
        return self.types[self.records][self.key] if self.records else self.types[self.key or ARRAY]

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
        except _READ_ERRORS as error:
            raise AnyrankError(f"--input {self.path} can no longer be read on this rank ({error}).") from None
        if any(len(column) != last - first for column in columns.values()):
            raise AnyrankError(f"--input {self.path} became shorter while it was read: it had {self.rows} rows.")
        keys = columns[self.records][self.key] if self.records else columns[self.key or ARRAY]
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
        return {name: others.get(name, keys) for name in self.types}

    def lay_out(self, path: Path) -> None:
        """Create a file of the same format and number of rows, with undefined values. Raises OSError."""
        types = {name: dtype if dtype.names else dtype.newbyteorder("=") for name, dtype in self.types.items()}
        if self.group:
            with h5py.File(path, "w", locking=False) as file:
                group = file.require_group(self.group)
                datasets = {
                    name: contiguous(group, name, (self.rows, *dtype.shape), dtype.base)
                    for name, dtype in types.items()
                }
                with h5py.File(self.path, "r", locking=False) as source:
                    _copy_attributes(source[self.group], group)
                    for name, dataset in datasets.items():
                        _copy_attributes(source[self.group][name], dataset)
        else:
            np.lib.format.open_memmap(path, mode="w+", dtype=types[ARRAY], shape=(self.rows,))  # type: ignore[no-untyped-call]
        with path.open("r+b") as plain:
            reserve(plain.fileno(), path.stat().st_size)

    def extents(self, path: Path) -> dict[str, int]:
        """Return the byte offset of each column in a file created by `lay_out`. Raises OSError."""
        return _extents(path, self.group, tuple(self.types))


def _attributes(source: Any) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a group or dataset, except references to other objects, which are not copied."""
    for name, value in source.attrs.items():
        if not h5py.check_ref_dtype(source.attrs.get_id(name).dtype) and np.asarray(value).dtype.names is None:
            yield name, value


def _copy_attributes(source: Any, target: Any) -> None:
    for name, value in _attributes(source):
        target.attrs[name] = value


def _plain(column: NDArray[Any]) -> NDArray[Any]:
    """Return the column in native byte order; rows with fields, in their byte order, or axes become untyped bytes."""
    if not column.dtype.names:
        column = column.astype(column.dtype.newbyteorder("="), copy=False)
    if not column.dtype.names and column.ndim == 1:
        return column
    elements = int(np.prod(column.shape[1:], dtype=np.int64))
    rows = np.ascontiguousarray(column).reshape(len(column), elements)
    return rows.view(f"V{column.itemsize * elements}").reshape(-1)


def _extents(path: Path, group: str = "", names: tuple[str, ...] = ()) -> dict[str, int]:
    if group:
        with h5py.File(path, "r", locking=False) as file:
            return {name: int(file[group][name].id.get_offset() or 0) for name in names}
    return {ARRAY: map_npy(path).offset}


def write(descriptor: int, column: NDArray[Any], offset: int) -> None:
    """Write the elements of a column at a byte offset of a file. Raises OSError."""
    write_all(descriptor, memoryview(np.ascontiguousarray(column).view(np.uint8)), offset)  # type: ignore[arg-type]


def open_array_file(name: str, key: str) -> ArrayFile:
    """Describe the table that `--input` names, as `describe_array_file` does, but let a child process read HDF5.

    Not collective. Raises UsageError also if HDF5 crashes or does not come to an end, because the file is damaged.
    """
    path, _ = _split_name(name)
    if path.suffix == ".npy":
        return describe_array_file(name, key)
    try:
        (table,) = call([path], _described, name, key)
    except _READ_ERRORS as error:
        raise _invalid(path, error) from None
    return table  # type: ignore[no-any-return]


def _described(name: str, key: str) -> Iterator[ArrayFile]:
    table = describe_array_file(name, key)
    with h5py.File(table.path, "r", locking=False) as file:
        group = file[table.group]
        for item in (group, *(group[name] for name in table.types)):
            if item is not group:
                check_stored(table.path, item)
            dict(_attributes(item))  # text of variable length can make HDF5 loop
    yield table


def _invalid(path: Path, error: Exception) -> UsageError:
    return UsageError(f"--input {path} is not a valid {path.suffix} file ({error}). Name another file.")


def _split_name(name: str) -> tuple[Path, str]:
    """Return the file and the name in the file."""
    for suffix in _HDF5:
        file, colon, rest = name.rpartition(f"{suffix}:")
        if colon:
            return Path(file + suffix), rest
    return Path(name), ""


def describe_array_file(name: str, key: str) -> ArrayFile:
    """Describe the table that `--input` names: FILE.npy, FILE.h5, FILE.h5:/GROUP, or FILE.h5:/GROUP/KEY for one column.

    `--key` names the key field or dataset. Not collective. Raises UsageError if the file or the key does not exist.
    """
    path, inner = _split_name(name)
    try:
        path.open("rb").close()
    except OSError as error:
        raise UsageError(f"--input {path} cannot be read ({error.strerror}). Name a .npy or .h5 file.") from None
    if path.suffix != ".npy" and path.suffix not in _HDF5:
        raise UsageError(f"--input {path} must end in .npy, .h5 or .hdf5. Save it as one of these.")
    try:
        table = _find_npy(path, key) if path.suffix == ".npy" else _find_hdf5(path, inner, key)
    except UsageError:
        raise
    except _READ_ERRORS as error:
        raise _invalid(path, error) from None
    if not sortable(table.key_type):
        raise UsageError(f"--input {path}: keys of {table.key_type} cannot be sorted. Use {SUPPORTED}.")
    return table


def _find_npy(path: Path, key: str) -> ArrayFile:
    array = map_npy(path)
    if array.ndim != 1:
        raise UsageError(f"--input {path}: {ARRAY} has {array.ndim} axes; it must have one. Reshape it.")
    _check(path, ARRAY, array)
    fields = array.dtype.names or ()
    if key not in (fields or ("",)):
        fix = f"--key {' or '.join(fields)}" if fields else "no --key: it has no fields"
        raise UsageError(f"--input {path} has no field {key!r}. Use {fix}.")
    return ArrayFile(path, len(array), {ARRAY: array.dtype}, key, records=ARRAY if fields else "")


def map_npy(path: Path) -> np.memmap[Any, Any]:
    """Map a .npy file into memory. Raises ValueError if it is not one."""
    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise ValueError("it does not begin as a .npy file does")
    try:
        array: np.memmap[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (SyntaxError, TokenError) as error:
        raise ValueError(f"its header cannot be parsed ({error})") from None
    return array


def _find_hdf5(path: Path, inner: str, key: str) -> ArrayFile:
    with h5py.File(path, "r", locking=False) as file:
        inner = inner or "/"
        if inner not in file:
            raise UsageError(f"--input {path} has no {inner}. It has {', '.join(file) or 'nothing'}.")
        item = file[inner]
        alone = isinstance(item, h5py.Dataset)
        group = item.parent if alone else item
        name = item.name.rpartition("/")[2]
        if alone and item.dtype.names:
            _check(path, item.name, item)
            if key not in item.dtype.names:
                raise UsageError(f"--input {path} has no field {key!r}. Use --key {' or '.join(item.dtype.names)}.")
            return ArrayFile(path, len(item), {name: item.dtype}, key, group.name, name)
        key = name if alone and not key else key
        columns = {name: item for name, item in group.items() if isinstance(item, h5py.Dataset)}
        if not key and len(columns) == 1:
            key = next(iter(columns))
        if key not in columns:
            raise UsageError(
                f"--input {path}: {group.name} has no dataset {key!r}. "
                f"Use --key with one of {', '.join(columns) or 'none: it has no datasets'}."
            )
        if columns[key].ndim > 1:
            raise UsageError(f"--input {path}: key {key} has {columns[key].ndim} axes; it must have one. Use another.")
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
        types = {name: np.dtype((column.dtype, column.shape[1:])) for name, column in columns.items()}
        return ArrayFile(path, len(columns[key]), types, key, group.name)


def _check(path: Path, name: str, array: Any) -> None:
    if array.ndim == 0:
        raise UsageError(f"--input {path}: {name} has no axis, and so no rows. Move it to another group.")
    if array.dtype.hasobject:
        raise UsageError(
            f"--input {path}: {name} holds objects or variable-length text. Use numbers or fixed-length bytes."
        )
