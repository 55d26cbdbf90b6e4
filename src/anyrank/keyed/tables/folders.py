"""Columns that are not in the files: the folders NAME=VALUE above a file, and columns that only other files have."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from anyrank.errors import UsageError
from anyrank.keyed.tables.csv import convert
from anyrank.keyed.tables.dialect import CsvOptions, Dialect
from anyrank.keyed.tables.infer import possible_types
from anyrank.keyed.tables.source import TableFile
from anyrank.keyed.types import arrow, is_text, name_of

#: The folder of rows whose value is null.
_NULL = "__HIVE_DEFAULT_PARTITION__"
#: How values are written in names of folders: as fields of CSV.
_DIALECT = Dialect(CsvOptions(), ",", 0, ())


def partitions_of(path: Path) -> dict[str, str | None]:
    """Return the values of the folders `NAME=VALUE` directly above a file, as Hive and Spark write them, by name."""
    values: dict[str, str | None] = {}
    for folder in reversed(path.absolute().parent.parts):
        name, equals, value = folder.partition("=")
        if not (equals and name):
            break
        values.setdefault(unquote(name), None if value in ("", _NULL) else unquote(value))
    return values


def add_constants(files: Sequence[TableFile], wanted: Sequence[str], union: bool) -> None:
    """Add the columns of folders to the files; with `union`, also wanted columns that only other files have, as nulls.

    Raises UsageError if a wanted column is in a file and in the names of its folders.
    """
    for file in files:
        folders = partitions_of(file.path)
        for name in wanted:
            if name in folders and name in file.types:
                raise UsageError(f"{file.path}: {name!r} is a column and the name of a folder. Rename one of them.")
        file.constants = {name: value for name, value in folders.items() if name not in file.types}
        file.types |= dict.fromkeys(file.constants, arrow().null())
    known = {name for file in files for name in file.types}
    for file in files:
        if union:
            missing = [name for name in wanted if name in known and name not in file.types]
            file.constants |= dict.fromkeys(missing)
            file.types |= dict.fromkeys(missing, arrow().null())
        file.nullable |= {name for name, value in file.constants.items() if value is None}


def types_of_folders(files: Sequence[TableFile], roles: Mapping[str, str]) -> dict[str, frozenset[str] | None]:
    """Return the types that the values of folders may have, as `possible_types` does, by column."""
    possible: dict[str, frozenset[str] | None] = {}
    for name, role in roles.items():
        values = {file.constants[name] for file in files if file.constants.get(name) is not None}
        column = arrow().array(sorted(map(str, values)), arrow().large_string())
        possible[name] = possible_types(column, role, _DIALECT) if role or not values else frozenset()
    return possible


def constant(value: str | None, type_: Any, count: int) -> Any:
    """Return a column that has the same value in all rows."""
    pa = arrow()
    array = pa.array([None if value is None else os.fsencode(value)], pa.large_binary())
    if not is_text(type_):
        array, wrong = convert(array, type_, _DIALECT)
        if wrong.any():
            raise UsageError(f"the name of a folder has {value!r}, which is not {name_of(type_)}. Use --types.")
    return pa.repeat(array[0], count)
