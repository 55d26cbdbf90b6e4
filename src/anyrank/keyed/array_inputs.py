"""Find the rows that `--input` of `sort` names in a .npy or HDF5 file, and refuse files that cannot be sorted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from anyrank.errors import UsageError
from anyrank.keyed.arrays import ARRAY, HDF5, READ_ERRORS, ArrayFile, map_npy
from anyrank.keyed.hdf5_extents import check_stored
from anyrank.keyed.reader_process import call
from anyrank.keyed.sort_keys import SUPPORTED, Key, sortable
from anyrank.storage.hdf5 import attributes_of


def is_array_file(name: str) -> bool:
    """Return whether `--input` is the name of a .npy or HDF5 file, or of a part of an HDF5 file."""
    return name.endswith((".npy", *HDF5)) or any(f"{suffix}:" in name for suffix in HDF5)


def open_array_file(name: str, by: tuple[Key, ...] = ()) -> ArrayFile:
    """Describe the table that `--input` names, as `describe_array_file` does, but let a child process read HDF5.

    Not collective. Raises UsageError also if HDF5 crashes or does not come to an end, because the file is damaged.
    """
    path, _ = _split_name(name)
    if path.suffix == ".npy":
        return describe_array_file(name, by)
    try:
        (table,) = call([path], _described, name, by)
    except READ_ERRORS as error:
        raise _invalid(path, error) from None
    return table  # type: ignore[no-any-return]


def _described(name: str, by: tuple[Key, ...]) -> Iterator[ArrayFile]:
    table = describe_array_file(name, by)
    with h5py.File(table.path, "r", locking=False) as file:
        group = file[table.group]
        for item in (group, *(group[name] for name in table.types)):
            if item is not group:
                check_stored(table.path, item)
            dict(attributes_of(item))  # text of variable length can make HDF5 loop
    yield table


def _invalid(path: Path, error: Exception) -> UsageError:
    return UsageError(f"--input {path} is not a valid {path.suffix} file ({error}). Name another file.")


def _split_name(name: str) -> tuple[Path, str]:
    """Return the file and the name in the file."""
    for suffix in HDF5:
        file, colon, rest = name.rpartition(f"{suffix}:")
        if colon:
            return Path(file + suffix), rest
    return Path(name), ""


def describe_array_file(name: str, by: tuple[Key, ...] = ()) -> ArrayFile:
    """Describe the table that `--input` names: FILE.npy, FILE.h5, FILE.h5:/GROUP, or FILE.h5:/GROUP/KEY for one column.

    `by` are the key fields or datasets; it may be empty if there is only one. Not collective. Raises UsageError if the
    file or a key does not exist.
    """
    path, inner = _split_name(name)
    try:
        path.open("rb").close()
    except OSError as error:
        raise UsageError(f"--input {path} cannot be read ({error.strerror}). Name a .npy or .h5 file.") from None
    if path.suffix != ".npy" and path.suffix not in HDF5:
        raise UsageError(f"--input {path} must end in .npy, .h5 or .hdf5. Save it as one of these.")
    try:
        table = _find_npy(path, by or (Key(""),)) if path.suffix == ".npy" else _find_hdf5(path, inner, by)
    except UsageError:
        raise
    except READ_ERRORS as error:
        raise _invalid(path, error) from None
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
