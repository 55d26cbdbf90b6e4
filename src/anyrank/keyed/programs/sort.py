"""Sort: sort the rows of a file by key; the file may be larger than memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from anyrank.errors import AnyrankError, UsageError, of_all_ranks
from anyrank.keyed import arrays
from anyrank.keyed.files import absolute
from anyrank.keyed.sorting import Sorter
from anyrank.layout import even_cuts
from anyrank.numerics.digest import hexadecimal, local_digest
from anyrank.program import Program, param
from anyrank.state import State
from anyrank.storage.durable import publish, sync, temporary_of
from anyrank.world import World

T = TypeVar("T")
_MODULUS = 1 << 64
#: Minimum bytes of memory outside of the Sorter: code and messages that are still to come, and unused parts of huge
#: pages.
_OTHER_BYTES = 8 << 20


class Sort(Program):
    """Sort the rows of a .npy or HDF5 file by key into a file of the same format. The sort is stable.

    Keys are int32, int64, uint32, uint64, float32, float64 (−0 before 0, NaNs last) or fixed-length bytes. A .npy file
    holds numbers, or records with a field that --key names. In HDF5, FILE.h5:/GROUP sorts all datasets of a group by
    the dataset that --key names; FILE.h5:/GROUP/NAME sorts only that dataset.

    Each rank reads its part of the rows, one piece per step, and sorts them. Rows that do not fit into --memory-limit
    are written to temporary files in --scratch, which are removed when the run ends in any way. Then each step writes
    a block of the output. A resumed run reads its input again and continues at the next block of the output.

        anyrank run sort -n 2 --input keys.npy --output sorted.npy     2·10⁸ int64 in 5 s on 2 cores
    """

    input: str = param(..., "FILE.npy, FILE.h5 or FILE.h5:/GROUP")
    key: str = param("", "the field or dataset to sort by; not needed if there is only one")
    output: str = param("", "file to write; default: sorted.npy or sorted.h5 in the run folder")
    scratch: str = param("", "folder on a local disk for rows that do not fit into memory; default: the run folder")
    chunk: int = param(1 << 27, "bytes of rows that a step reads", ge=1)
    block: int = param(1 << 27, "bytes of rows that a step writes", ge=1)

    def check(self) -> None:
        """Make paths absolute, so that the run can be resumed in any folder."""
        self.input, self.output, self.scratch = absolute(self.input), absolute(self.output), absolute(self.scratch)

    def declare(self, state: State) -> None:
        """Declare three Scalars: the rows written, their digest, and the fingerprint of the input."""
        self.table = state.world.on_root(partial(arrays.open_array_file, self.input, self.key))
        folder = state.folder or Path()
        self.path = Path(self.output) if self.output else folder / f"sorted{self.table.path.suffix}"
        self._temporary = temporary_of(self.path, hexadecimal(self.table.fingerprint % _MODULUS))
        state.world.on_root(partial(self._check_output, (folder / "run.toml").exists()))
        rows, row = self.table.rows, self.table.row_bytes
        self._per_block = max(1, self.block // row)
        self.reads = -(-rows // max(1, self.chunk // row))
        self.steps = self.reads + max(1, -(-rows // self._per_block))
        self._sorter: Sorter | None = None
        self._read_to, self._descriptor = 0, -1
        state.scalar("rows_written", 0, description="rows of the output so far")
        state.scalar("output_digest", 0, description="digest of the rows written, as a signed number")
        state.scalar("input_fingerprint", self.table.fingerprint, description="hash of the input's layout")

    def _check_output(self, begun: bool) -> None:
        if self.path.suffix != self.table.path.suffix:
            raise UsageError(f"--output {self.path} must end in {self.table.path.suffix}, as --input does. Rename it.")
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
            budget = state.budget()
            budget -= max(_OTHER_BYTES, budget // 4)
            self._sorter = Sorter(state.world, budget, Path(self.scratch or state.folder or "."))
        try:
            self._advance(state, self._sorter)
        except AnyrankError:
            self._sorter.close()
            raise

    def _advance(self, state: State, sorter: Sorter) -> None:
        upto = min(state.step + 1, self.reads)
        if self._read_to < max(upto, 1):
            with state.world.raise_on_all_ranks():
                self._read(state.world, sorter, upto)
        if state.step >= self.reads:
            if self._descriptor < 0:
                with state.world.raise_on_all_ranks():
                    sorter.finish()
                self._open(state)
            self._write(state, sorter, (state.step - self.reads) * self._per_block)

    def _read(self, world: World, sorter: Sorter, upto: int) -> None:
        """Read this rank's part of the pieces that were not read yet; an empty piece is added, too."""
        start, end = even_cuts(self.table.rows, world.size)[world.rank : world.rank + 2]
        pieces = even_cuts(end - start, max(self.reads, 1))
        first, last = start + pieces[self._read_to], start + pieces[upto]
        most = sorter.rows(self.table.row_bytes)
        for begin in range(first, last, most) if first < last else [first]:
            sorter.add(*self.table.read(begin, min(begin + most, last)))
        self._read_to = max(upto, 1)

    def _open(self, state: State) -> None:
        """Create the output, or open the output of the run that is resumed."""

        def create() -> None:
            if state.rows_written and not self._temporary.exists():
                raise AnyrankError(f"{self._temporary}, the output so far, is missing. Start again with another --out.")
            if not state.rows_written:
                self.table.lay_out(self._temporary)

        def open_file() -> None:
            self._extents = self.table.extents(self._temporary)
            self._descriptor = os.open(self._temporary, os.O_WRONLY)

        state.world.on_root(partial(self._check_io, create))
        with state.world.raise_on_all_ranks():
            self._check_io(open_file)

    def _check_io(self, action: Callable[[], T]) -> T:
        """Return the value of an action. Raises AnyrankError if the output cannot be written."""
        try:
            return action()
        except OSError as error:
            raise AnyrankError(
                f"--output {self.path} cannot be written ({error.strerror or error}); it takes "
                f"{self.table.rows * self.table.row_bytes} bytes. Free space and resume, or use another --output."
            ) from None

    def _write(self, state: State, sorter: Sorter, first: int) -> None:
        """Write a block of the output and sync it to disk, so that a resumed run can rely on it."""
        last, digest = min(first + self._per_block, self.table.rows), 0
        for start, keys, others in sorter.blocks(first, last):
            columns = self.table.columns(keys, others)
            with state.world.raise_on_all_ranks():
                self._check_io(partial(self._put, columns, start))
            for number, column in enumerate(columns.values()):
                digest += _digest(column, number * self.table.rows + start)
        with state.world.raise_on_all_ranks():
            self._check_io(lambda: sync(self._descriptor))
        total = int(state.world.allreduce(np.array([digest % _MODULUS], np.uint64))[0])
        state.output_digest = _signed(state.output_digest + total)
        state.rows_written = last

    def _put(self, columns: arrays.Arrays, start: int) -> None:
        for name, column in columns.items():
            arrays.write(self._descriptor, column, self._extents[name] + start * column.itemsize)

    def result(self, state: State) -> dict[str, Any]:
        """Rename the output to its final name; return the rows, the file, its digest, the first and the last key."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        if self._sorter is not None:
            self._sorter.close()
        ends = state.world.on_root(lambda: self._check_io(self._publish))
        return {
            "rows": self.table.rows,
            "output": self.output or self.path.name,  # a relative name, because the run folder may move
            "digest": hexadecimal(state.output_digest % _MODULUS),
            **dict(zip(("first", "last"), ends, strict=False)),
        }

    def _publish(self) -> list[Any]:
        """Rename the output unless it already has its name; return the first and the last key."""
        if self._temporary.exists():
            if self.path.exists():
                raise AnyrankError(f"--output {self.path} was created while {self._temporary} was written. Move one.")
            publish(self._temporary, self.path)
        inner = f":{self.table.group.rstrip('/')}/{self.table.records}" if self.table.group else ""
        written = arrays.describe_array_file(f"{self.path}{inner}", self.table.key)
        ends = (0, written.rows - 1) if written.rows else ()
        keys = [written.read(end, end + 1)[0][0].item() for end in ends]
        return [key.decode(errors="backslashreplace") if isinstance(key, bytes) else key for key in keys]

    def work(self) -> tuple[float, str]:
        """Return the mean rows per step."""
        return self.table.rows / self.steps, "rows"


def _digest(column: NDArray[Any], start: int) -> int:
    """Return the digest of rows that begin at a global index, in the widest words that divide the size of a row."""
    size = column.itemsize
    width = next(width for width in (8, 4, 2, 1) if size % width == 0)
    words = np.ascontiguousarray(column).view(f"u{width}").reshape(len(column), size // width)
    return local_digest(words, words.shape, (start, 0))


def _signed(number: int) -> int:
    """Return a number mod 2^64 as a signed 64-bit number."""
    number %= _MODULUS
    return number - _MODULUS if number >= _MODULUS // 2 else number
