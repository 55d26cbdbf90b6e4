"""The rows of a Table on disk: runs sorted by the hashes of their keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anyrank.keyed.rows import Columns
from anyrank.keyed.spill import KEY, ScratchFile, SortedInMemory, SortedOnDisk
from anyrank.storage.on_disk import DiskArray

Metadata = Mapping[str, np.ndarray]


class DiskText(NamedTuple):
    """A Text on disk: the sizes of the elements, and their bytes one after the other."""

    sizes: DiskArray
    data: DiskArray


class Runs:
    """Runs of rows in a temporary file, each sorted by hash, and the metadata of their values."""

    def __init__(self, folder: Path):
        self.scratch, self.runs, self.metadata = ScratchFile(folder), list[SortedOnDisk](), list[Metadata]()
        #: Whether each key has one row, and each run begins after the last hash of the run before.
        self.merged = False

    def __len__(self) -> int:
        return sum(len(run.keys) for run in self.runs)

    @property
    def size(self) -> int:
        """The bytes of the rows."""
        return self.scratch.size

    def spill(self, columns: Columns, metadata: Metadata) -> None:
        """Write a run. Raises AnyrankError if the disk is full."""
        self.runs.append(self.scratch.spill(SortedInMemory(columns), gaps=1))
        self.metadata.append(metadata)
        self.merged = False

    def is_merged(self, metadata: Metadata) -> bool:
        """Whether each key has one row, and the values have these metadata."""
        now = {name: values.tolist() for name, values in metadata.items()}
        return self.merged and all({k: v.tolist() for k, v in run.items()} == now for run in self.metadata)

    def arrays(self) -> dict[str, DiskArray | DiskText]:
        """Return the columns of all rows, in the order of the runs."""
        return {name: self._array(name) for name in self.runs[0].columns if name != KEY}

    def _array(self, name: str) -> DiskArray | DiskText:
        kinds, rows = self.runs[0].columns[name], [len(run.keys) for run in self.runs]
        if len(kinds) == 1:
            return DiskArray(*kinds[0], zip(rows, (partial(run.read_part, name, 0) for run in self.runs), strict=True))
        sizes = zip(rows, (partial(run.sizes, name) for run in self.runs), strict=True)
        texts = [(run.text_bytes(name), partial(run.read_part, name, 1)) for run in self.runs]
        return DiskText(DiskArray(np.dtype(np.int64), (), sizes), DiskArray(*kinds[1], texts))


def rows_between(runs: Sequence[SortedInMemory | SortedOnDisk], low: int, high: int) -> Iterator[tuple[int, Columns]]:
    """Yield the rows of each run with hashes from `low` to before `high`, with the number of the run."""
    for number, run in enumerate(runs):
        first, last = (
            len(run.keys) if hash_ >= 1 << 64 else int(run.keys.searchsorted(np.array([hash_], np.uint64))[0])
            for hash_ in (low, high)
        )
        if first < last:
            yield number, columns_between(run, first, last)


def columns_between(run: SortedInMemory | SortedOnDisk, first: int, last: int) -> Columns:
    """Return rows `first` to `last` of a run, without their hashes."""
    return {name: run.read(name, first, last) for name in run.columns if name != KEY}
