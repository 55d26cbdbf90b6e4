"""Rows in array files: a one-dimensional `.npy` array, or HDF5 datasets of equal length in one group.

A row of a dataset with several axes is its part at one index of the first axis.

Every rank reads rows by row number. One rank creates the output file, and every rank writes its rows at their offsets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from tokenize import TokenError
from typing import Any, ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray

from anyrank.errors import AnyrankError
from anyrank.keyed.rows import Columns
from anyrank.keyed.sort_keys import Key
from anyrank.keyed.sort_output import Output
from anyrank.storage.durable import reserve, temporary_of
from anyrank.storage.hdf5 import contiguous, copy_attributes, copy_rows, fill_value, like

Arrays = dict[str, NDArray[Any]]
#: The column name for the array of a .npy file.
ARRAY = "array"
#: The suffixes of HDF5 files.
HDF5 = (".h5", ".hdf5")
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
        written = replace(self, path=path)
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
