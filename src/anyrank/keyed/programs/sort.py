"""Sort: sort the rows of files by keys; the files may be larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from anyrank.errors import AnyrankError, UsageError, of_all_ranks
from anyrank.keyed.array_inputs import is_array_file, open_array_file
from anyrank.keyed.arrays import ArrayFile
from anyrank.keyed.files import absolute, find_files
from anyrank.keyed.keymap import hashes_of
from anyrank.keyed.rows import Column, Text
from anyrank.keyed.sort_keys import Key
from anyrank.keyed.sort_output import Output
from anyrank.keyed.sort_parquet import ParquetRows
from anyrank.keyed.sort_tables import CsvRows, TableRows
from anyrank.keyed.sorting import Sorter
from anyrank.keyed.spill import OTHER_BYTES, data_share
from anyrank.keyed.tables import TableFiles
from anyrank.keyed.tables.columns import ColumnSpec, parse_name, split_names
from anyrank.keyed.tables.csv import CsvFile
from anyrank.keyed.tables.dialect import CsvOptions
from anyrank.keyed.tables.options import CsvParameters
from anyrank.keyed.tables.parquet import ParquetFile
from anyrank.keyed.tables.source import table_class
from anyrank.keyed.types import arrow
from anyrank.layout import even_cuts
from anyrank.numerics.digest import hexadecimal, local_digest
from anyrank.program import Program, param
from anyrank.state import State
from anyrank.storage.durable import publish, temporary_of
from anyrank.world import World

T = TypeVar("T")
_MODULUS = 1 << 64


class Sort(CsvParameters, Program):
    """Sort the rows of .npy, HDF5, CSV or Parquet files by keys into one file of the same format. The sort is stable.

    Keys are numbers, bool, times, bytes or text of any length. NaN, NaT and nulls are the last, in descending order,
    too; −0 is before 0. A .npy file holds numbers, or records with the fields that --by names. In HDF5, FILE.h5:/GROUP
    sorts all datasets of a group by the datasets that --by names, and FILE.h5:/GROUP/NAME sorts only that dataset;
    attributes, chunks, filters and fill values are kept. CSV and Parquet may be several files, folders and globs; a
    key of CSV is text unless all of its values are numbers, and the records of CSV are written as they were read.

    Each rank reads its part of the rows, one piece per step, and sorts them. Rows that do not fit into --memory-limit
    are written to temporary files in --scratch, which are removed when the run ends in any way. Then each step writes
    a block of the output. A resumed run reads its input again and continues at the next block of the output.

        anyrank run sort -n 2 --input keys.npy --output sorted.npy     2·10⁸ int64 in 5 s on 2 cores
        anyrank run sort -n 2 --input 'log/*.csv' --by 'country,-price'
    """

    branchable = False

    input: str = param(..., "FILE.npy, FILE.h5, FILE.h5:/GROUP, or files, folders and globs of CSV or Parquet")
    key: str = param("", "the one field, dataset or column to sort by; not needed if there is only one")
    by: str = param("", "keys, separated by commas, - before those in descending order, such as 'country,-price'")
    output: str = param("", "file to write; default: sorted.npy, .h5, .csv or .parquet in the run folder")
    scratch: str = param("", "folder on a local disk for rows that do not fit into memory; default: the run folder")
    chunk: int = param(1 << 27, "bytes of rows that a step reads", ge=1)
    block: int = param(1 << 27, "bytes of rows that a step writes", ge=1)

    def check(self) -> None:
        """Make paths absolute, so that the run can be resumed in any folder; parse keys, types and options."""
        self.input, self.output, self.scratch = absolute(self.input), absolute(self.output), absolute(self.scratch)
        if self.key and self.by:
            raise UsageError(f"--key {self.key} and --by {self.by} name keys twice. Use one of them.")
        self.keys = (Key(self.key),) if self.key else parse_by(self.by)
        self.stated_types, self.options = self.csv_types(), self.csv_options()

    def declare(self, state: State) -> None:
        """Declare three Scalars: the rows written, their digest, and the fingerprint of the input."""
        self.table = self._source(state.world)
        suffix, folder = self.table.suffixes[0], state.folder or Path()
        self.path = Path(self.output) if self.output else folder / f"sorted{suffix}"
        self._temporary = temporary_of(self.path, hexadecimal(self.table.fingerprint % _MODULUS))
        state.world.on_root(partial(self._check_output, (folder / "run.toml").exists()))
        self.reads = self.table.reads(self.chunk)
        blocks = self.table.writes(self.block)
        self.steps = self.reads + blocks
        self._output: Output = self.table.output(self._temporary, blocks)
        self._sorter: Sorter | None = None
        self._read_to, self._next, self._rows = 0, -1, 0
        state.scalar("rows_written", 0, description="rows of the output so far")
        state.scalar("output_digest", 0, description="digest of the rows written, as a signed number")
        if isinstance(self.table, TableRows):
            state.scalar("bad", 0, description="bad rows that were skipped")
        state.scalar("input_fingerprint", self.table.fingerprint, description="hash of the input's layout")

    def _source(self, world: World) -> ArrayFile | TableRows:
        if not is_array_file(self.input):
            return table_rows(self.input, self.keys, world, self.on_bad, self.stated_types, self.options)
        return world.on_root(partial(open_array_file, self.input, self.keys))

    def _check_output(self, begun: bool) -> None:
        if self.path.suffix not in self.table.suffixes:
            raise UsageError(f"--output {self.path} must end in {self.table.suffixes[0]}, as --input does. Rename it.")
        if not self.path.parent.is_dir() and self.output:
            raise UsageError(f"--output {self.path}: folder {self.path.parent} does not exist. Create it.")
        if self.path.exists() and not begun:
            raise UsageError(f"--output {self.path} exists, and is never overwritten. Use another name.")

    def step(self, state: State) -> None:
        """Read a piece of the input, or write a block of the output."""
        if state.input_fingerprint != self.table.fingerprint:
            raise of_all_ranks(
                UsageError(f"--input {self.input} has changed since the run began. Restore it, or use another --out.")
            )
        if self._sorter is None:
            share, folder = self._share(state.budget()), Path(self.scratch or state.folder or ".")
            self.table.prepare(share)
            self._sorter = Sorter(state.world, share, folder, self.table.descending)
        try:
            self._advance(state, self._sorter)
        except AnyrankError:
            self._sorter.close()
            raise

    def _share(self, budget: int) -> int:
        """Return the bytes of a memory budget that sorted rows may take. Raises UsageError if it is too small."""
        held = self.table.write_bytes(self.block) if isinstance(self.table, TableRows) else 0
        short = OTHER_BYTES + max(OTHER_BYTES, budget // 4, held) - budget
        if held and short > 0:  # known to all ranks
            raise of_all_ranks(
                UsageError(
                    f"--block {self.block} takes {held} bytes of memory while it is written, and a rank may use "
                    f"{budget}. Use a smaller --block, or a --memory-limit of {short} bytes more."
                )
            )
        return data_share(budget, max(OTHER_BYTES, held))

    def _advance(self, state: State, sorter: Sorter) -> None:
        upto = min(state.step + 1, self.reads)
        if self._read_to < max(upto, 1):
            with state.world.raise_on_all_ranks():
                self._read(state.world, sorter, upto)
        if state.step >= self.reads:
            block = state.step - self.reads
            if self._next < 0:
                with state.world.raise_on_all_ranks():
                    sorter.finish()
                self._total = state.world.sum(self._rows)
                if isinstance(self.table, TableRows):
                    state.bad = state.world.sum(self.table.bad.count)
                self._open(state)
                self._next = 0 if self._output.appends else block
            for number in range(self._next, block + 1):  # a file that is appended to is written again from its begin
                self._write(state, sorter, number, number == block)
            self._next = block + 1

    def _read(self, world: World, sorter: Sorter, upto: int) -> None:
        """Read this rank's part of the pieces that were not read yet; an empty piece is added, too."""
        start, end = even_cuts(self.table.size, world.size)[world.rank : world.rank + 2]
        cuts = even_cuts(end - start, max(self.reads, 1))
        most = sorter.rows(self.table.row_bytes)
        for keys, others in self.table.pieces(start + cuts[self._read_to], start + cuts[upto], most):
            self._rows += len(keys[0])
            sorter.add(keys, others)
        self._read_to = max(upto, 1)

    def _open(self, state: State) -> None:
        """Create the output, or open the output of the run that is resumed."""

        def create() -> None:
            if self._output.appends or not state.rows_written:
                self._output.create()
            elif not self._temporary.exists():
                raise AnyrankError(f"{self._temporary}, the output so far, is missing. Start again with another --out.")

        state.world.on_root(partial(self._check_io, create))
        with state.world.raise_on_all_ranks():
            self._check_io(self._output.open)

    def _check_io(self, action: Callable[[], T]) -> T:
        """Return the value of an action. Raises AnyrankError if the output cannot be written."""
        try:
            return action()
        except OSError as error:
            raise AnyrankError(
                f"--output {self.path} cannot be written ({error.strerror or error}); it takes about "
                f"{self.table.output_bytes} bytes. Free space and resume, or use another --output."
            ) from None

    def _write(self, state: State, sorter: Sorter, number: int, new: bool) -> None:
        """Write a block of the output and sync it to disk, so that a resumed run can rely on it."""
        world, size, digest = state.world, self.table.block_rows(self.block, self._total), 0
        last = min((number + 1) * size, self._total)
        for start, keys, others in sorter.blocks(number * size, last):
            columns = self.table.output_columns(keys, others)
            where = self._output.locate(columns, start)
            with world.raise_on_all_ranks(Exception):
                self._check_io(partial(self._output.put, columns, where))
            for column_number, column in enumerate(columns.values()):
                digest += _digest(column, column_number * self._total + start)
        with world.raise_on_all_ranks(Exception):
            self._check_io(self._output.flush)
        total = int(world.allreduce(np.array([digest % _MODULUS], np.uint64))[0])
        if new:
            state.output_digest = _signed(state.output_digest + total)
            state.rows_written = last

    def result(self, state: State) -> dict[str, Any]:
        """Rename the output to its final name; return the rows, the file, its digest, the first and the last key."""
        if state.world.rank:
            self._output.close()
        if self._sorter is not None:
            self._sorter.close()
        ends = state.world.on_root(lambda: self._check_io(self._publish))
        return {
            "rows": state.rows_written,
            "output": self.output or self.path.name,  # a relative name, because the run folder may move
            "digest": hexadecimal(state.output_digest % _MODULUS),
            **({"left_out": state.bad} if isinstance(self.table, TableRows) else {}),
            **{name: keys[0] if len(keys) == 1 else keys for name, keys in zip(("first", "last"), ends, strict=False)},
        }

    def _publish(self) -> list[list[Any]]:
        """Rename the output unless it already has its name; return the first and the last keys."""
        self._output.close()
        if self._temporary.exists():
            if self.path.exists():
                raise AnyrankError(f"--output {self.path} was created while {self._temporary} was written. Move one.")
            self._output.complete()
            publish(self._temporary, self.path)
        return self.table.ends(self.path)

    def work(self) -> tuple[float, str]:
        """Return the mean rows, or bytes of table files, per step."""
        return self.table.size / self.steps, self.table.unit


def table_rows(
    names: str, by: Sequence[Key], world: World, on_bad: str, types: Mapping[str, Any], options: CsvOptions
) -> TableRows:
    """Return the rows of CSV or of Parquet files. Collective.

    Raises UsageError on all ranks if files are of both formats or of others, or a key is missing.
    """

    def columns_of() -> tuple[bool, list[str]]:
        paths = [*find_files(names, TableFiles.hidden)]
        classes = {path: table_class(path, options) for path in paths}
        for path, found in classes.items():
            if found is ParquetFile and {*classes.values()} == {ParquetFile}:
                continue
            if not issubclass(found, CsvFile):
                raise UsageError(f"--input {path}: name one .npy or .h5 file, or CSV files, or Parquet files.")
        csv = issubclass(classes[paths[0]], CsvFile)
        try:
            return csv, [] if csv else arrow("parquet").read_schema(paths[0]).names
        except (OSError, arrow().ArrowException) as error:
            raise UsageError(f"{paths[0]} cannot be read as a table: {error}") from None

    csv, columns = world.on_root(columns_of)
    if not by or not all(key.name for key in by):
        raise of_all_ranks(UsageError("--by is missing: name the columns to sort by, such as --by 'country,-price'."))
    others = [ColumnSpec(name, role="any") for name in columns if name not in {key.name for key in by}]
    return (CsvRows if csv else ParquetRows)(names, by, others, world, on_bad, types, options)


def parse_by(text: str) -> tuple[Key, ...]:
    """Parse `country,-price`: names, in double quotes if they have commas or begin with `-`, and `-` for descending.

    Raises UsageError if a name occurs twice, or is missing beside others.
    """
    parts = split_names(text)
    keys = [Key(parse_name(part.removeprefix("-")), part.startswith("-")) for part in parts]
    names = [key.name for key in keys]
    if len({*names}) < len(names) or (len(names) > 1 and "" in names):
        raise UsageError(f"--by {text!r} must name each key once, such as 'country,-price'.")
    return tuple(keys)


def _digest(column: Column, start: int) -> int:
    """Return the digest of rows that begin at a global index, in the widest words that divide the size of a row.

    Elements of Text are their hashes.
    """
    column = hashes_of(column) if isinstance(column, Text) else column
    size = column.itemsize
    width = next(width for width in (8, 4, 2, 1) if size % width == 0)
    words = np.ascontiguousarray(column).view(f"u{width}").reshape(len(column), size // width)
    return local_digest(words, words.shape, (start, 0))


def _signed(number: int) -> int:
    """Return a number mod 2^64 as a signed 64-bit number."""
    number %= _MODULUS
    return number - _MODULUS if number >= _MODULUS // 2 else number
