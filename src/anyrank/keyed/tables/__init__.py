"""Table input: CSV, Parquet, HDF5 and `.npy` files as one table, divided between ranks.

No collective call depends on what one rank sees. What rank 0 learns when it opens the files (names, types, which
columns may have nulls, folders, sizes) is sent to all ranks. What a rank learns from its part of the rows (types of
CSV, quotes) is gathered from all ranks before a type or the begin of a record depends on it. `read` is local: it makes
no collective call, so its caller must agree on the number of its own. See `TableFiles`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from anyrank.errors import AnyrankError, UsageError, of_all_ranks
from anyrank.kernels.records import QUOTED, RECORD
from anyrank.keyed import reader_process
from anyrank.keyed.rows import Text
from anyrank.keyed.tables import arrays, parquet  # noqa: F401 (registers them)
from anyrank.keyed.tables.columns import ColumnSpec, similar
from anyrank.keyed.tables.csv import CsvFile, Records, decimal_mark
from anyrank.keyed.tables.dialect import CsvOptions
from anyrank.keyed.tables.folders import add_constants, constant, partitions_of, types_of_folders
from anyrank.keyed.tables.infer import inferred_type, likely_type, possible_types
from anyrank.keyed.tables.source import BadRows, Rows, TableFile, is_isolated, opened
from anyrank.keyed.tables.times import component, times_of
from anyrank.keyed.text import TextFiles
from anyrank.keyed.types import arrow, is_text, is_time, name_of, to_times, unify, values_of
from anyrank.keyed.values import Values
from anyrank.layout import even_cuts
from anyrank.state import State
from anyrank.world import World


class TableFiles(TextFiles):
    """Columns of the rows of table files. The constructor is collective.

    All files must have the requested columns, with types that have a common type. The folders `NAME=VALUE` directly
    above a file are columns, too; their types are inferred as those of CSV. Chunks are ranges of bytes of the
    files, so that they depend only on the files. The types of CSV columns are inferred from all rows of all files.

    Parameters
    ----------
    names : str or sequence of str
        Files, folders and globs, as for `TextFiles`. In folders, files whose names begin with `.` or `_` are left out.
    wanted : sequence of ColumnSpec
        The columns, and functions of columns, to read.
    world : World or State
        The ranks that read the files; see `TextFiles`.
    on_bad : str
        `error`: a malformed row or a value of another type raises UsageError in `read`; `skip`: `bad` counts such rows,
        and they are left out.
    types : mapping of str to Arrow type, optional
        The types of columns of CSV and of folders, which are not inferred then. A timestamp also converts numbers of
        its unit, in any file.
    options : CsvOptions, optional
        How CSV files are written.
    zone : str
        The time zone of dates and hours; UTC if empty.
    union : bool
        Whether a column that only some files have is null in the others; otherwise it raises UsageError.

    Attributes
    ----------
    types : dict of str to Arrow type
        The types of the requested columns by label.

    Raises
    ------
    UsageError
        On all ranks, if a file or column cannot be read.

    Examples
    --------
    >>> _ = keyed.write_csv(World(), Path("rows.csv"), {"x": np.array([1, 2]), "y": np.array([0.5, 0.7])})
    >>> files = keyed.TableFiles("rows.csv", [keyed.ColumnSpec("x")], World())
    >>> [batch["x"].values for batch in files.read(0, files.size)]
    [array([1, 2])]
    """

    hidden = (".", "_")

    #: Whether the program has an option for `union`.
    unites: ClassVar[bool] = True

    def __init__(
        self,
        names: str | Sequence[str],
        wanted: Sequence[ColumnSpec],
        world: World | State,
        on_bad: str = "error",
        types: Mapping[str, Any] | None = None,
        options: CsvOptions | None = None,
        zone: str = "",
        union: bool = False,
    ):
        super().__init__(names, world)
        world = self.world
        self.wanted = [*{(spec.label, spec.role): spec for spec in wanted}.values()]
        self.bad, self.zone = BadRows(on_bad == "skip"), zone
        if any(is_isolated(path) for path in self.paths):
            if world.rank == 0:
                reader_process.start()
            arrow("parquet")  # while the child process starts
        self.files: list[TableFile] = world.on_root(lambda: self._open_all(options or CsvOptions(), union))
        given = types or {}
        world.on_root(lambda: self._check_names(given))
        self._find_records()
        self._infer_types(given)
        #: The types of the columns of the files, and of the requested columns.
        self.columns, self.types = world.on_root(self._join_types)

    def nullable(self, label: str) -> bool:
        """Return whether a column may have nulls. Not collective.

        Parameters
        ----------
        label : str
            The label of a requested column.
        """
        column = next(spec.column for spec in self.wanted if spec.label == label)
        return any(column in file.nullable for file in self.files)

    def empty_is_null(self, label: str) -> bool:
        """Return whether a column is text that is null if and only if it is empty. Not collective.

        Parameters
        ----------
        label : str
            The label of a requested column.
        """
        return is_text(self.types[label]) and all(isinstance(file, CsvFile) for file in self.files)

    def check_memory(self, budget: int) -> None:
        """Raise UsageError if a file must be decoded in larger pieces. Not collective, but the same on all ranks.

        Parameters
        ----------
        budget : int
            Bytes, the same on all ranks.
        """
        file = max(self.files, key=lambda file: file.decoded)
        if file.decoded > budget:
            raise of_all_ranks(
                UsageError(
                    f"{file.path} has compressed chunks of {file.decoded} bytes, and a rank may use {budget}. Use a "
                    "larger --memory-limit, or smaller chunks."
                )
            )

    def read(self, begin: int, end: int) -> Iterator[dict[str, Values]]:
        """Yield batches of rows, as columns by label. Not collective.

        Parameters
        ----------
        begin, end : int
            The range in bytes of the concatenated files. Adjacent ranges, such as those from `part` and `rounds`,
            partition the rows.

        Raises
        ------
        UsageError
            For a bad row.
        AnyrankError
            If a file cannot be read.
        """
        for file, low, high in self._pieces(begin, end):
            names = file.stored(self.columns)
            default = file.types[names[0]] if names else arrow().null()
            default = arrow().large_binary() if arrow().types.is_null(default) else default  # CSV of an unknown type
            types = {name: self.columns.get(name, default) for name in names}
            with named_errors(file):
                for rows in file.read(low, high, types, self.bad):
                    self._convert_times(rows, types)
                    count = len(next(iter(rows.columns.values()), ()))
                    rows.columns |= {
                        name: constant(file.constants[name], type_, count)
                        for name, type_ in self.columns.items()
                        if name in file.constants
                    }
                    yield self._requested(rows)

    def _convert_times(self, rows: Rows, types: Mapping[str, Any]) -> None:
        """Convert columns of numbers that `--types` declares to be times; numbers that are not times are bad."""
        for name, numbers in rows.columns.items():
            type_ = types[name]
            if arrow().types.is_timestamp(type_) and not is_time(numbers.type):
                rows.columns[name], wrong = to_times(numbers, type_)
                if wrong.any():
                    row = int(np.argmax(wrong))
                    rule = f"{name} {numbers[row]} is not {name_of(type_)}, the type of the column"
                    rows.drop(wrong, self.bad, partial(_located, rows, row, rule))

    def _pieces(self, begin: int, end: int) -> Iterator[tuple[TableFile, int, int]]:
        """Yield the files and their ranges of bytes in a range of the concatenated files."""
        for index, file in enumerate(self.files):
            first = self._ends[index] - self.sizes[index]
            if max(begin, first) < min(end, self._ends[index]):
                yield file, max(begin - first, 0), min(end - first, self.sizes[index])

    def _open_all(self, options: CsvOptions, union: bool) -> list[TableFile]:
        files = [*self._open(options)]
        add_constants(files, [spec.column for spec in self.wanted], union)
        return files

    def _open(self, options: CsvOptions) -> Iterator[TableFile]:
        """Yield the files; a child process opens those whose metadata can crash a library."""
        columns = [spec.column for spec in self.wanted]
        isolated = [(path, size) for path, size in zip(self.paths, self.sizes, strict=True) if is_isolated(path)]
        others = reader_process.call([path for path, _ in isolated], opened, isolated, options, columns)
        for path, size in zip(self.paths, self.sizes, strict=True):
            try:
                yield next(others if is_isolated(path) else opened([(path, size)], options, columns))
            except UsageError:
                raise
            except Exception as error:
                raise UsageError(f"{path} cannot be read as a table: {error or type(error).__name__}") from None
        if isolated:
            next(others, None)  # the end, after which the child is idle

    @staticmethod
    def _name(path: Path) -> str:
        return "/".join(path.absolute().parts[-1 - len(partitions_of(path)) :])

    def _check_names(self, given: Mapping[str, Any]) -> None:
        """Raise UsageError if a file lacks a column, or no file has a column whose type is given."""
        known = {name for file in self.files for name in file.types}
        for spec in self.wanted:
            for file in self.files:
                if spec.column not in file.types:
                    fix = similar(spec.column, file.types)
                    if spec.column in known and self.unites:
                        fix = "Other files have it: use --union by-name to read nulls in its place."
                    raise UsageError(f"{file.path} has no column {spec.column!r}. {fix}")
        for name, type_ in sorted(given.items(), key=lambda item: item[0]):
            if not any(_takes(file, name, type_) for file in self.files):
                raise UsageError(
                    f"--types {name}: no CSV file has this column, and no file has numbers in it that could be times. "
                    "Remove it, or correct its name."
                )

    def _csv(self) -> list[CsvFile]:
        return [file for file in self.files if isinstance(file, CsvFile)]

    def _find_records(self) -> None:
        """Find the state at every segment of the CSV files that have quotes. Collective.

        Each rank reads a part of the segments and finds the state after it for each state before it. These maps are
        then composed from the first segment on.
        """
        files, world = self._csv(), self.world
        segments = [file.segments for file in files]
        ends = np.cumsum([0, *segments])
        cuts = even_cuts(int(ends[-1]), world.size)
        low, high = cuts[world.rank], cuts[world.rank + 1]
        maps: list[tuple[int, ...]] = []
        with world.raise_on_all_ranks():
            for file, first, count in zip(files, ends.tolist(), segments, strict=False):
                with named_errors(file):
                    maps += file.segment_maps(max(low - first, 0), min(high - first, count))
        whole = [states for part in world.comm.allgather(maps) for states in part]
        for file, first, count in zip(files, ends.tolist(), segments, strict=False):
            states = [RECORD]
            for states_after in whole[first : first + count]:
                states.append(states_after[states[-1]] if states_after else states[-1])
            file.states = np.array(states, np.uint8)
            if states[-1] == QUOTED:  # known to all ranks
                raise of_all_ranks(file.open_quote())

    def _infer_types(self, given: Mapping[str, Any]) -> None:
        """Infer the types of the requested columns of the CSV files from all of their rows. Collective."""
        pa = arrow()
        roles = {spec.column: spec.inferred_as for spec in sorted(self.wanted, key=lambda spec: spec.role != "key")}
        roles |= {spec.column: "key" for spec in self.wanted if spec.inferred_as == "key"}
        roles = {name: role for name, role in roles.items() if name not in given}
        cuts = even_cuts(self.size, self.world.size)
        possible: dict[str, frozenset[str] | None] = {n: None if role else frozenset() for n, role in roles.items()}
        with self.world.raise_on_all_ranks():
            for file, low, high in self._pieces(cuts[self.world.rank], cuts[self.world.rank + 1]):
                if isinstance(file, CsvFile):
                    with named_errors(file):
                        self._infer(file, low, high, roles, possible)
        parts = [*self.world.comm.allgather(possible), types_of_folders(self.files, roles)]
        joint = {name: inferred_type([part[name] for part in parts]) for name in roles}
        default = {"number": pa.float64(), "operand": pa.null()}
        joint = {n: default.get(roles[n], pa.large_binary()) if pa.types.is_null(t) else t for n, t in joint.items()}
        for file in self.files:
            texts = file.types.keys() if isinstance(file, CsvFile) else file.constants.keys()
            missing = {name for name, value in file.constants.items() if value is None}
            file.types |= {name: joint[name] for name in (joint.keys() & texts) - missing}
            file.types |= {name: type_ for name, type_ in given.items() if _takes(file, name, type_)}

    @staticmethod
    def _infer(
        file: CsvFile, begin: int, end: int, roles: Mapping[str, str], possible: dict[str, frozenset[str] | None]
    ) -> None:
        """Remove the types that the rows of a part of a file cannot have."""
        for offset, data in file.blocks(begin, end):
            open_ = [n for n, names in possible.items() if n in file.dialect.names and (names is None or names)]
            if not open_:
                return
            records = Records(file, offset, data)
            if not records.convert({name: likely_type(roles[name], possible[name]) for name in open_}):
                records.read(dict.fromkeys(open_, arrow().large_binary()), BadRows(skip=True))
            for name in open_:
                possible[name] = possible_types(records.columns[name], roles[name], file.dialect, possible[name])

    def _join_types(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the types of the columns, common to all files, and of the requested columns."""
        columns: dict[str, Any] = {}
        for spec in self.wanted:
            joint, where = self.files[0].types[spec.column], self.files[0].path
            for file in self.files[1:]:
                type_ = file.types[spec.column]
                both = None if isinstance(joint, str) or isinstance(type_, str) else unify(joint, type_)
                if both is None and type_ != joint:
                    names = (type_ if isinstance(type_, str) else name_of(type_) for type_ in (joint, type_))
                    raise UsageError(
                        f"column {spec.column!r} is {next(names)} in {where} and {next(names)} in {file.path}; a "
                        "column must have one type. Convert one of the files."
                    )
                joint, where = (type_ if both is None else both), file.path if both == type_ != joint else where
            null = not isinstance(joint, str) and arrow().types.is_null(joint)
            if null:
                joint = arrow().float64() if spec.role in ("number", "value") else arrow().large_binary()
            columns[spec.column] = joint
        return columns, {spec.label: spec.type(columns[spec.column], self._fix_of(spec)) for spec in self.wanted}

    def _fix_of(self, spec: ColumnSpec) -> str:
        return self._decimal_mark(spec.column) if spec.inferred_as == "number" else ""

    def _decimal_mark(self, name: str) -> str:
        """Return the flag for the decimal mark if a column of CSV is text only because of it."""
        file = next((file for file in self._csv() if name in file.dialect.names), None)
        if file is None or not is_text(file.types[name]):
            return ""
        with named_errors(file):
            for offset, data in file.blocks(0, file.size):
                records = Records(file, offset, data)
                records.read({name: arrow().large_binary()}, BadRows(skip=True))
                return decimal_mark(records.columns[name], file.dialect)
        return ""

    def _requested(self, rows: Rows) -> dict[str, Values]:
        """Return the requested values of rows, without bad rows."""
        columns = {spec.label: self._column(spec, rows) for spec in self.wanted}
        if rows.wrong is not None:
            kept = arrow().array(~rows.wrong)
            columns = {label: column.filter(kept) for label, column in columns.items()}
        result = {label: values_of(column, self.types[label]) for label, column in columns.items()}
        for label, values in result.items():  # empty text of CSV is null
            if values.nulls is None and isinstance(values.values, Text) and rows.empty_is_null:
                empty = values.values.sizes == 0
                result[label] = Values(values.values, empty if empty.any() else None)
        return result

    def _column(self, spec: ColumnSpec, rows: Rows) -> Any:
        column = rows.columns[spec.column]
        if not spec.function:
            return column
        times, wrong, hint = times_of(column, self.zone)
        if wrong.any():
            row = int(np.argmax(wrong))
            value = (column.slice(row, 1).cast(arrow().string()) if is_time(column.type) else column[row:])[0].as_py()
            text = repr(value.decode(errors="backslashreplace")) if isinstance(value, bytes) else value
            rule = f"{spec.column} {text} is not a time. {hint}".rstrip(". ").replace("NAME=", f"{spec.column}=")
            rows.drop(wrong, self.bad, partial(_located, rows, row, rule))
        return component(spec.function, times, self.zone)


def _located(rows: Rows, row: int, rule: str) -> str:
    return f"{rows.where(row)}: {rule}"


def _takes(file: TableFile, name: str, type_: Any) -> bool:
    """Return whether a stated type applies to a column: of CSV, of folders, or of numbers that are times."""
    own, t = file.types.get(name), arrow().types
    if own is None or isinstance(own, str):
        return False
    number = t.is_integer(own) or t.is_floating(own)
    return isinstance(file, CsvFile) or name in file.constants or bool(t.is_timestamp(type_) and number)


@contextmanager
def named_errors(file: TableFile) -> Iterator[None]:
    """Raise an AnyrankError with the name of the file in place of any error of Arrow, HDF5, NumPy and codecs."""
    try:
        yield
    except AnyrankError:
        raise
    except UnicodeDecodeError as error:
        raise UsageError(f"{file.path} is not written in --encoding {error.encoding}. Name its encoding.") from None
    except Exception as error:
        raise AnyrankError(f"{file.path} cannot be read: {error or type(error).__name__}") from None
