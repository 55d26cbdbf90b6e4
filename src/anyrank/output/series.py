"""Time series on disk: series.csv, to which rows are appended, and series.h5, which is made from it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from anyrank.output.row import STEP, Row
from anyrank.output.schedule import Schedule
from anyrank.storage import durable

FORMAT, VERSION = "anyrank series", 1
_DTYPES = {"bool": np.bool_, "int": np.int64, "float": np.float64}


@dataclass(frozen=True)
class Recovered:
    """What a file has when a run continues: its last step or −1, the types of its columns, and the missing steps."""

    last: int = -1
    kinds: dict[str, str] | None = None
    missing: tuple[int, ...] = ()


class SeriesFile:
    """The file series.csv of a run. Only one process writes it.

    Parameters
    ----------
    path : Path
        The file, which need not exist.
    """

    def __init__(self, path: Path):
        self._path = path
        self._descriptor, self._size, self._name_is_durable = -1, 0, False

    def begin(self) -> None:
        """Start a new series: remove the file. Raises OSError."""
        self._path.unlink(missing_ok=True)

    def recover(self, step: int, schedule: Schedule) -> Recovered:
        """Cut the file back to the rows of a run that continues from `step`.

        Rows of later steps, and those that are not due, are removed. The row of `step` itself may be missing.

        Raises
        ------
        ValueError
            If a line before that of `step` is no row of a series; the file is then unchanged.
        OSError
            If the file cannot be read or written.
        """
        content = _content(self._path)
        rows: list[Row] = []
        problem = ""
        try:
            for row in read_rows(self._path, content):
                if row.step > step:
                    break
                rows.append(row)
        except ValueError as error:
            problem = str(error)
        kept = [row for row in rows if schedule.due(row.step)]
        missing = sorted({*schedule.needed(step)} - {step, *(row.step for row in kept)})
        if missing and problem:
            raise ValueError(problem)
        self._replace(kept, content)
        return Recovered(kept[-1].step, kept[-1].kinds, tuple(missing)) if kept else Recovered(missing=tuple(missing))

    def append(self, row: Row) -> None:
        """Append a row in one write. Raises OSError; then the file is as it was before."""
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o666)
            self._size = os.fstat(self._descriptor).st_size
        data = (row.line if self._size else row.header + row.line).encode()
        try:
            durable.write_all(self._descriptor, memoryview(data), self._size)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._size)  # a part of a line is no row
            raise
        self._size += len(data)

    def sync(self) -> None:
        """Wait until all rows are on the disk. Raises OSError."""
        if self._descriptor >= 0:
            durable.sync(self._descriptor)
            if not self._name_is_durable:
                durable.sync_folder(self._path.parent)
                self._name_is_durable = True

    def finish(self, last: int, schedule: Schedule) -> None:
        """Remove the rows that the series of a run that finished at `last` does not keep. Raises OSError."""
        content = self._path.read_bytes()
        self._replace([row for row in read_rows(self._path, content) if schedule.keeps(row.step, last)], content)

    def _replace(self, rows: list[Row], content: bytes) -> None:
        """Replace the content of the file by these rows, unless it has them."""
        new = "".join([rows[0].header, *(row.line for row in rows)]).encode() if rows else b""
        if new != content:
            self.close()
            durable.write_atomically(self._path, new)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def read_rows(path: Path, content: bytes) -> Iterator[Row]:
    """Yield the rows in the content of a series.csv; a last line without an end, which a kill leaves, is no row.

    Raises ValueError, with the number of the line, for a line that is no row: it has other columns or types than the
    first row, or its step is not after that of the line before.
    """
    lines = content.decode("utf-8", errors="replace").split("\n")[:-1]
    if not lines:
        return
    first, *names = lines[0].split(",")
    if first != STEP:
        raise ValueError(f"{path}, line 1: {lines[0][:60]!r} must begin with the column {STEP}")
    kinds, before = None, -1
    for number, line in enumerate(lines[1:], 2):
        try:
            row = Row.parse(line, names)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        kinds = kinds or row.kinds
        if row.kinds != kinds or row.step <= before:
            rule = f"has step {row.step} after {before}" if row.step <= before else "has values of other types"
            raise ValueError(f"{path}, line {number}: {line[:60]!r} {rule}")
        before = row.step
        yield row


def _content(path: Path) -> bytes:
    """Return the bytes of the file; none if it does not exist. Raises ValueError if it is no file, such as a FIFO."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} cannot be read: it is not a file")
    return path.read_bytes() if path.exists() else b""


def has_columns(path: Path) -> bool:
    """Return whether the file is there and has columns besides the step. Not collective."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return b"," in file.readline()


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a series.csv by name, `step` first: int64, float64 or bool. Not collective.

    The result is empty if there is no file. Raises ValueError if a line is no row, OSError if the file cannot be read.
    """
    rows = [*read_rows(path, _content(path))]
    if not rows:
        return {}
    columns = {STEP: np.array([row.step for row in rows], np.int64)}
    for name, kind in rows[0].kinds.items():
        columns[name] = np.array([row.values[name] for row in rows], _DTYPES[kind])
    return columns


def write_hdf5(path: Path, columns: dict[str, np.ndarray], program: str) -> None:
    """Write the columns as series.h5, one dataset each; `step` is their dimension scale. Not collective.

    The same columns give the same bytes. Raises OSError; an existing file is then unchanged.
    """
    # In memory first: HDF5 crashes at the end of the process if the disk becomes full while it writes.
    with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
        file.attrs["format"], file.attrs["format_version"], file.attrs["program"] = FORMAT, VERSION, program
        for name, values in columns.items():
            file.create_dataset(name, data=values, track_times=False)
        if columns:
            file[STEP].make_scale(STEP)
            file[STEP].attrs["long_name"] = "number of steps done"
        for name in [name for name in columns if name != STEP]:
            file[name].dims[0].attach_scale(file[STEP])
        file.flush()
        image = file.id.get_file_image()
    durable.write_atomically(path, image)


class Series(Mapping[str, np.ndarray]):
    """The columns of a series.csv by name, as NumPy arrays: `step` first, then those of `observe`.

    The file is read at the first access. ValueError if a line of it is no row.

    Parameters
    ----------
    path : Path
        The file; without it there are no columns.
    """

    def __init__(self, path: Path):
        self._path = path

    @cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        return read_columns(self._path)

    def frame(self) -> Any:
        """Return the columns as a pandas DataFrame. Raises ImportError if pandas is not installed."""
        import pandas  # optional, and it takes long to import

        return pandas.DataFrame(self._columns)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._columns:
            raise KeyError(f"{name!r} is no column of {self._path}: its columns are {[*self]}")
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return f"Series({str(self._path)!r}: {', '.join(self) or 'no columns'})"
