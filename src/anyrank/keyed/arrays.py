"""Rows in array files: a one-dimensional `.npy` array, or HDF5 datasets of equal length in one group.

A row of a dataset with several axes is its part at one index of the first axis.

Every rank reads rows by row number. One rank creates the output file, and every rank writes its rows at their offsets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray

from anyrank.errors import AnyrankError, UsageError
from anyrank.keyed.rows import Columns
from anyrank.keyed.sort_keys import SUPPORTED, Key, sortable
from anyrank.keyed.sort_output import Output
from anyrank.storage.durable import reserve, temporary_of
from anyrank.storage.hdf5 import contiguous, copy_attributes, copy_rows, fill_value, like

Arrays = dict[str, NDArray[Any]]
#: The column name for the array of a .npy file.
ARRAY = "array"
_HDF5 = (".h5", ".hdf5")
#: The errors of NumPy, HDF5 and h5py for files that are damaged.
READ_ERRORS = (OSError, ValueError, RuntimeError, LookupError, EOFError, TypeError, MemoryError)


@dataclass(frozen=True)
class ArrayFile:
    """Description of an array file: number of rows, dtype of a row of each column, and the keys.

    A .npy file has one column. `by` are the columns with the keys, or if `records` is the name of a column with fields,
    fields of it. `group` is the HDF5 group.
    """

    path: Path
    rows: int
    types: dict[str, np.dtype[Any]]
    by: tuple[Key, ...]
    group: str = ""
    records: str = ""
    #: What `size` counts.
    unit: ClassVar[str] = "rows"

    @property
    def row_bytes(self) -> int:
        """Bytes per row."""
        return sum(dtype.itemsize for dtype in self.types.values())

    @property
    def key_types(self) -> dict[str, np.dtype[Any]]:
        """The dtypes of the keys by name."""
        types = {name: self.types[self.records][name] for name in self._fields} if self.records else self.types
        return {key.name: types[key.name or ARRAY] for key in self.by}

    @property
    def _fields(self) -> tuple[str, ...]:
        return self.types[self.records].names or ()

    @property
    def fingerprint(self) -> int:
        """Signed 64-bit hash of the file name (without folder), its layout and the keys."""
        kinds = {name: dtype.descr for name, dtype in self.types.items()}
        keys = self.by if len(self.by) > 1 or self.by[0].descending else self.by[0].name
        identity = repr((self.path.name, self.rows, kinds, keys, self.group))
        return int.from_bytes(blake2b(identity.encode(), digest_size=8).digest(), "little", signed=True)

    def read(self, first: int, last: int) -> tuple[list[NDArray[Any]], Arrays]:
        """Read rows `first` to `last`: the keys, and the other columns by name. Not collective.

        Records are returned as untyped bytes. Raises AnyrankError if the file cannot be read or has become shorter.
        """
        try:
            columns = self._read_hdf5(first, last) if self.group else {ARRAY: self._read_npy(first, last)}
        except READ_ERRORS as error:
            raise AnyrankError(f"--input {self.path} can no longer be read on this rank ({error}).") from None
        if any(len(column) != last - first for column in columns.values()):
            raise AnyrankError(f"--input {self.path} became shorter while it was read: it had {self.rows} rows.")
        source = columns[self.records] if self.records else columns
        keys = {key.name or ARRAY: np.ascontiguousarray(source[key.name or ARRAY]) for key in self.by}
        others = {name: _plain(column) for name, column in columns.items() if self.records or name not in keys}
        return [*keys.values()], others

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

    def output_columns(self, keys: Sequence[NDArray[Any]], others: Mapping[str, Any]) -> dict[str, Any]:
        """Return keys and other columns, as `read` returns them, as the columns of a file."""
        named = {} if self.records else {key.name or ARRAY: column for key, column in zip(self.by, keys, strict=True)}
        return {name: named.get(name, others.get(name)) for name in self.types}

    @property
    def _output_types(self) -> dict[str, np.dtype[Any]]:
        return {name: dtype if dtype.names else dtype.newbyteorder("=") for name, dtype in self.types.items()}

    def lay_out(self, path: Path) -> None:
        """Create a file of the same format and number of rows, with undefined values. Raises OSError."""
        types = self._output_types
        if self.group:
            with self._open_source() as source, h5py.File(path, "w", locking=False) as file:
                group = self._output_group(source, file)
                for name, dtype in types.items():
                    shape, fill = (self.rows, *dtype.shape), fill_value(source[self.group][name])
                    copy_attributes(source[self.group][name], contiguous(group, name, shape, dtype.base, fill))
        else:
            np.lib.format.open_memmap(path, mode="w+", dtype=types[ARRAY], shape=(self.rows,))  # type: ignore[no-untyped-call]
        with path.open("r+b") as plain:
            reserve(plain.fileno(), path.stat().st_size)

    def _output_group(self, source: Any, file: Any) -> Any:
        group = file.require_group(self.group)
        copy_attributes(source[self.group], group)
        return group

    @contextmanager
    def _open_source(self) -> Iterator[Any]:
        """Open the input for its metadata. Raises AnyrankError if it cannot be read, OSError for other files."""
        try:
            file = h5py.File(self.path, "r", locking=False)
        except READ_ERRORS as error:
            raise AnyrankError(f"--input {self.path} can no longer be read ({error}).") from None
        with file:
            yield file

    def restore_storage(self, path: Path) -> None:
        """Give the datasets of a complete output the chunks and filters of the input. Raises OSError.

        The blocks of an output are written at their offsets, which the filters of HDF5 do not permit.
        """
        if not self.group:
            return
        temporary = temporary_of(path)
        with self._open_source() as source:
            if not any(source[self.group][name].chunks for name in self.types):
                return
            with h5py.File(path, "r", locking=False) as plain, h5py.File(temporary, "w", locking=False) as file:
                group = self._output_group(source, file)
                for name, dtype in self._output_types.items():
                    copy_rows(plain[self.group][name], like(source[self.group][name], group, name, dtype.base))
        temporary.replace(path)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The suffixes that the output may have."""
        return (self.path.suffix,)

    @property
    def size(self) -> int:
        """The number of rows, which the ranks divide."""
        return self.rows

    @property
    def output_bytes(self) -> int:
        """The size of the output in bytes, without headers."""
        return self.rows * self.row_bytes

    @property
    def descending(self) -> list[bool]:
        """The directions of the keys."""
        return [key.descending for key in self.by]

    def reads(self, chunk: int) -> int:
        """Return the number of steps that read the input."""
        return -(-self.rows // max(1, chunk // self.row_bytes))

    def writes(self, block: int) -> int:
        """Return the number of steps that write the output."""
        return max(1, -(-self.rows // self.block_rows(block, self.rows)))

    def block_rows(self, block: int, rows: int) -> int:
        """Return the number of rows of a block of the output."""
        return max(1, block // self.row_bytes)

    def prepare(self, budget: int) -> None:
        """Do nothing: keys of arrays are sorted as they are read."""

    def pieces(self, begin: int, end: int, most: int) -> Iterator[tuple[list[NDArray[Any]], Arrays]]:
        """Yield the keys and other columns of rows, at most `most` at a time; an empty range is one piece."""
        for first in range(begin, end, most) if begin < end else [begin]:
            yield self.read(first, min(first + most, end))

    def output(self, path: Path, blocks: int) -> ArrayOutput:
        """Return the writer of a file."""
        return ArrayOutput(self, path)

    def ends(self, path: Path) -> list[list[Any]]:
        """Return the keys of the first and of the last row of the output, a complete file."""
        inner = f":{self.group.rstrip('/')}/{self.records}" if self.group else ""
        written = describe_array_file(f"{path}{inner}", self.by)
        ends = (0, self.rows - 1) if self.rows else ()
        return [[_value(key[0]) for key in written.read(end, end + 1)[0]] for end in ends]

    def extents(self, path: Path) -> dict[str, int]:
        """Return the byte offset of each column in a file created by `lay_out`. Raises OSError."""
        return _extents(path, self.group, tuple(self.types))


class ArrayOutput(Output):
    """A .npy or HDF5 file; rows are written at their offsets."""

    appends = False

    def __init__(self, source: ArrayFile, path: Path):
        super().__init__(path)
        self.source = source

    def create(self) -> None:
        """See Output."""
        self.source.lay_out(self.path)

    def open(self) -> None:
        """See Output."""
        self._extents = self.source.extents(self.path)
        super().open()

    def put(self, columns: Columns, where: int) -> None:
        """See Output."""
        for name, column in columns.items():
            array = np.asarray(column)
            self._write(array, self._extents[name] + where * array.itemsize)

    def complete(self) -> None:
        """See Output."""
        self.source.restore_storage(self.path)


def _value(key: Any) -> Any:
    """Return a key for JSON."""
    if key.dtype.kind in "mM":
        return str(key)
    value = key.item()
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


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


def is_array_file(name: str) -> bool:
    """Return whether `--input` is the name of a .npy or HDF5 file, or of a part of an HDF5 file."""
    return name.endswith((".npy", *_HDF5)) or any(f"{suffix}:" in name for suffix in _HDF5)


def describe_array_file(name: str, by: tuple[Key, ...] = ()) -> ArrayFile:
    """Describe the table that `--input` names: FILE.npy, FILE.h5, FILE.h5:/GROUP, or FILE.h5:/GROUP/KEY for one column.

    `by` are the key fields or datasets; it may be empty if there is only one. Not collective. Raises UsageError if the
    file or a key does not exist.
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
        table = _find_npy(path, by or (Key(""),)) if path.suffix == ".npy" else _find_hdf5(path, inner, by)
    except UsageError:
        raise
    except READ_ERRORS as error:
        raise UsageError(f"--input {path} is not a valid {path.suffix} file ({error}). Name another file.") from None
    for key, dtype in table.key_types.items():
        if not sortable(dtype):
            which = f"key {key}" if key else "the key"
            raise UsageError(f"--input {path}: {which} is {dtype} and cannot be sorted. Use {SUPPORTED}.")
    return table


def _find_npy(path: Path, by: tuple[Key, ...]) -> ArrayFile:
    array = map_npy(path)
    if array.ndim != 1:
        raise UsageError(f"--input {path}: {ARRAY} has {array.ndim} axes; it must have one. Reshape it.")
    _check(path, ARRAY, array)
    fields = array.dtype.names or ()
    _check_fields(path, fields or ("",), by)
    return ArrayFile(path, len(array), {ARRAY: array.dtype}, by, records=ARRAY if fields else "")


def _check_fields(path: Path, fields: tuple[str, ...], by: tuple[Key, ...]) -> None:
    for key in by or (Key(""),):
        if key.name not in fields:
            fix = f"--key {' or '.join(fields)}" if any(fields) else "no --key: it has no fields"
            raise UsageError(f"--input {path} has no field {key.name!r}. Use {fix}.")


def map_npy(path: Path) -> np.memmap[Any, Any]:
    """Map a .npy file into memory. Raises ValueError if it is not one."""
    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise ValueError("it does not begin as a .npy file does")
    array: np.memmap[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _find_hdf5(path: Path, inner: str, by: tuple[Key, ...]) -> ArrayFile:
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
            _check_fields(path, item.dtype.names, by)
            return ArrayFile(path, len(item), {name: item.dtype}, by, group.name, name)
        columns = {name: item for name, item in group.items() if isinstance(item, h5py.Dataset)}
        only = name if alone else next(iter(columns)) if len(columns) == 1 else ""
        if only and (not by or not by[0].name):
            by = (Key(only, any(key.descending for key in by)),)
        for key in by or (Key(""),):
            _check_key(path, group.name, columns, key.name)
        if alone:
            columns = {key.name: columns[key.name] for key in by}
        _check_columns(path, group.name.rstrip("/"), columns, by[0].name)
        types = {name: np.dtype((column.dtype, column.shape[1:])) for name, column in columns.items()}
        return ArrayFile(path, len(columns[by[0].name]), types, by, group.name)


def _check_key(path: Path, group: str, columns: Mapping[str, Any], key: str) -> None:
    if key not in columns:
        raise UsageError(
            f"--input {path}: {group} has no dataset {key!r}. "
            f"Use --key with one of {', '.join(columns) or 'none: it has no datasets'}."
        )
    if columns[key].ndim > 1:
        raise UsageError(f"--input {path}: key {key} has {columns[key].ndim} axes; it must have one. Use another.")


def _check_columns(path: Path, group: str, columns: Mapping[str, Any], key: str) -> None:
    for name, column in columns.items():
        _check(path, f"{group}/{name}", column)
        if len(column) != len(columns[key]):
            raise UsageError(
                f"--input {path}: {name} has {len(column)} rows, and the key {key} has {len(columns[key])}; all "
                "datasets must have the same length. Move it to another group, or sort only "
                f"{path}:{group}/{key}."
            )


def _check(path: Path, name: str, array: Any) -> None:
    dict(getattr(array, "attrs", {}))  # they are copied when the output is laid out, which is too late for an error
    if array.ndim == 0:
        raise UsageError(f"--input {path}: {name} has no axis, and so no rows. Move it to another group.")
    if array.dtype.hasobject:
        raise UsageError(
            f"--input {path}: {name} holds objects or variable-length text. Use numbers or fixed-length bytes."
        )
