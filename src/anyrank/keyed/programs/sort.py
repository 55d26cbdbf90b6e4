"""Sort: the rows of a file by key, more of them than memory holds if need be."""

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
from anyrank.keyed.sort import Sorter
from anyrank.layout import even_cuts
from anyrank.numerics.digest import hexadecimal, local_digest
from anyrank.program import Program, param
from anyrank.state import State
from anyrank.storage.durable import publish, sync, temporary_of
from anyrank.world import World

T = TypeVar("T")
_MODULUS = 1 << 64
#: Bytes of memory, at least, for what is none of the Sorter's: code and messages yet to come, and huge pages, which
#: may be larger than what is in them.
_OTHER_BYTES = 8 << 20


class Sort(Program):
    """Sorts the rows of a .npy or HDF5 file by key: one stable order, in a file of the same kind.

    Keys are int32, int64, uint32, uint64, float32, float64 (−0 before 0, NaNs last) or fixed bytes. The rows of a
    .npy file are numbers, or records, of which --key names a field; those of HDF5 the datasets of a group, of which
    --key names one: FILE.h5:/GROUP. FILE.h5:/GROUP/NAME is that dataset alone.

    Each rank reads its part of the rows, a piece a step, and sorts them; what --memory-limit does not leave room for
    goes to --scratch, to files that are gone when the run ends, however it does. Then each step puts a block of the
    output together. A run that is stopped and resumed reads its input again, and goes on at the block it had come to.

        anyrank run sort -n 2 --input keys.npy --output sorted.npy     2·10⁸ int64 in 5 s on 2 cores
    """

    input: str = param(..., "FILE.npy, FILE.h5 or FILE.h5:/GROUP")
    key: str = param("", "the field or dataset to sort by; may be left out where there is but one")
    output: str = param("", "file to write; left out: sorted.npy or sorted.h5 in the run folder")
    scratch: str = param("", "folder on a local disk for what memory does not hold; left out: the run folder")
    chunk: int = param(1 << 27, "bytes of rows that a step reads", ge=1)
    block: int = param(1 << 27, "bytes of rows that a step writes", ge=1)

    def check(self) -> None:
        """Files are found from wherever the run is resumed."""
        self.input, self.output, self.scratch = absolute(self.input), absolute(self.output), absolute(self.scratch)

    def declare(self, state: State) -> None:
        """Three Scalars: how far the output has come, its digest, and what the input is."""
        self.table = state.world.on_root(partial(arrays.find, self.input, self.key))
        folder = state.folder or Path()
        self.path = Path(self.output) if self.output else folder / f"sorted{self.table.path.suffix}"
        self._temporary = temporary_of(self.path, hexadecimal(self.table.fingerprint % _MODULUS))
        state.world.on_root(partial(self._check_output, (folder / "run.toml").exists()))
        rows, row = self.table.rows, self.table.row
        self._per_block = max(1, self.block // row)
        self.reads = -(-rows // max(1, self.chunk // row))
        self.steps = self.reads + max(1, -(-rows // self._per_block))
        self._sorter: Sorter | None = None
        self._read_to, self._descriptor = 0, -1
        state.scalar("rows_written", 0, description="rows of the output so far")
        state.scalar("output_digest", 0, description="digest of these rows, as a signed number")
        state.scalar("input_fingerprint", self.table.fingerprint, description="what the input is")

    def _check_output(self, begun: bool) -> None:
        if self.path.suffix != self.table.path.suffix:
            raise UsageError(f"--output {self.path} must end in {self.table.path.suffix}, as --input does. Rename it.")
        if not self.path.parent.is_dir() and self.output:
            raise UsageError(f"--output {self.path}: there is no folder {self.path.parent}. Make it, or use another.")
        if self.path.exists() and not begun:
            raise UsageError(f"--output {self.path} is there already, and is never overwritten. Use another name.")

    def step(self, state: State) -> None:
        """Read a piece of the input, or write a block of the output."""
        if state.input_fingerprint != self.table.fingerprint:
            raise of_all_ranks(
                UsageError(f"--input {self.input} is not what the run began with. Bring it back, or use another --out.")
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
        """Read this rank's part of the pieces that were not read yet; the empty ones are added, too."""
        mine = even_cuts(self.table.rows, world.size)[world.rank : world.rank + 2]
        pieces = even_cuts(mine[1] - mine[0], max(self.reads, 1))
        first, last = mine[0] + pieces[self._read_to], mine[0] + pieces[upto]
        most = sorter.rows(self.table.row)
        for begin in range(first, last, most) if first < last else [first]:
            sorter.add(*self.table.read(begin, min(begin + most, last)))
        self._read_to = max(upto, 1)

    def _open(self, state: State) -> None:
        """Make the output, or find it where it was begun."""

        def begun() -> None:
            if state.rows_written and not self._temporary.exists():
                raise AnyrankError(f"{self._temporary}, the output so far, is gone. Begin again, with another --out.")
            if not state.rows_written:
                self.table.lay_out(self._temporary)

        def opened() -> None:
            self._extents = self.table.extents(self._temporary)
            self._descriptor = os.open(self._temporary, os.O_WRONLY)

        state.world.on_root(partial(self._check_io, begun))
        with state.world.raise_on_all_ranks():
            self._check_io(opened)

    def _check_io(self, action: Callable[[], T]) -> T:
        """The action's value; AnyrankError where the output cannot be written."""
        try:
            return action()
        except OSError as error:
            raise AnyrankError(
                f"--output {self.path} was not written ({error.strerror or error}): it takes "
                f"{self.table.rows * self.table.row} bytes. Mend that and resume, or use another --output."
            ) from None

    def _write(self, state: State, sorter: Sorter, first: int) -> None:
        """Write a block, which stays whatever comes."""
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
        """The rows, the file, its digest, the first and the last key. Gives the file its name."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        if self._sorter is not None:
            self._sorter.close()
        ends = state.world.on_root(lambda: self._check_io(self._publish))
        return {
            "rows": self.table.rows,
            "output": self.output or self.path.name,  # the run folder may be anywhere
            "digest": hexadecimal(state.output_digest % _MODULUS),
            **dict(zip(("first", "last"), ends, strict=False)),
        }

    def _publish(self) -> list[Any]:
        """Rename the output, unless that was done before; the first and the last key."""
        if self._temporary.exists():
            if self.path.exists():
                raise AnyrankError(f"--output {self.path} came to be while {self._temporary} was written. Move one.")
            publish(self._temporary, self.path)
        written = arrays.find(f"{self.path}:{self.table.group}" if self.table.group else str(self.path), self.table.key)
        ends = (0, written.rows - 1) if written.rows else ()
        keys = [written.read(end, end + 1)[0][0].item() for end in ends]
        return [key.decode(errors="backslashreplace") if isinstance(key, bytes) else key for key in keys]

    def work(self) -> tuple[float, str]:
        """The rows, over all steps."""
        return self.table.rows / self.steps, "rows"


def _digest(column: NDArray[Any], start: int) -> int:
    """The digest of rows that begin at a global index: of their bytes, in the widest words that they are made of."""
    size = column.itemsize
    width = next(width for width in (8, 4, 2, 1) if size % width == 0)
    words = np.ascontiguousarray(column).view(f"u{width}").reshape(len(column), size // width)
    return local_digest(words, words.shape, (start, 0))


def _signed(number: int) -> int:
    """A number mod 2^64 as an int64 holds it."""
    number %= _MODULUS
    return number - _MODULUS if number >= _MODULUS // 2 else number
