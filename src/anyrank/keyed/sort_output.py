"""The output file of `sort`: blocks of sorted rows, one after another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from anyrank.keyed.rows import Columns
from anyrank.storage.durable import sync, write_all


class Output:
    """The output of all ranks, a plain file. Only rank 0 calls `create` and `complete`, and all ranks the others."""

    #: Whether blocks follow each other without known offsets: a resumed run then writes the file again from its begin.
    appends = True

    def __init__(self, path: Path):
        self.path, self._descriptor = path, -1

    def create(self) -> None:
        """Create the file. Raises OSError."""

    def open(self) -> None:
        """Open the file. Raises OSError."""
        self._descriptor = os.open(self.path, os.O_WRONLY)

    def locate(self, columns: Columns, start: int) -> int:
        """Return where `put` writes this rank's part of the next rows; `start` is its first row. Collective."""
        return start

    def put(self, columns: Columns, where: int) -> None:
        """Write this rank's part of the next rows. Raises OSError."""

    def flush(self) -> None:
        """Wait until this rank's parts of a block are on the disk. Raises OSError."""
        sync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def complete(self) -> None:
        """Do what is left when all blocks are written. Raises OSError."""

    def _write(self, array: np.ndarray, offset: int) -> None:
        data: Any = np.ascontiguousarray(array).view(np.uint8)
        write_all(self._descriptor, memoryview(data), offset)
