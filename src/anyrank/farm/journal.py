"""The records of a farm on disk: append-only files, one for each rank of each execution, and what they say together."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anyrank.farm.tasks import DONE, Record, decode
from anyrank.storage.durable import make_folder, sync
from anyrank.world import World

_NAME = re.compile(r"records-(\d{4})-(\d{6})")


class Entries(NamedTuple):
    """Where the last records of tasks are: task, status, file, offset and bytes of each, int64 arrays."""

    task: np.ndarray
    status: np.ndarray
    file: np.ndarray
    offset: np.ndarray
    size: np.ndarray


class Records:
    """The records of a farm in a folder. The constructor is collective.

    A record is valid if it is complete and its CRC-32 is right: a killed process may leave a part of one at the end.
    """

    def __init__(self, folder: Path, world: World):
        self._folder, self._world = folder, world
        self.files: list[Path] = world.on_root(lambda: self._find())
        numbers = [int(match[1]) for file in self.files if (match := _NAME.fullmatch(file.name))]
        self._path = folder / f"records-{1 + max(numbers, default=0):04}-{world.rank:06}"
        self._file = -1

    def _find(self) -> list[Path]:
        make_folder(self._folder)
        return sorted(file for file in self._folder.iterdir() if _NAME.fullmatch(file.name))

    def execution(self, number: int) -> int:
        """Return the number of the execution of the run, from 1, that wrote a file."""
        return int(self.files[number].name.split("-")[1])

    def rank_of(self, number: int) -> int:
        """Return the rank that wrote a file."""
        return int(self.files[number].name.split("-")[2])

    def write(self, records: bytes) -> None:
        """Append encoded records, which a kill of this process cannot undo. Not collective."""
        if self._file < 0:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        data = memoryview(records)
        while data:
            data = data[os.write(self._file, data) :]

    def sync(self) -> None:
        """Wait until the records are on the disk. Not collective."""
        if self._file >= 0:
            sync(self._file)

    def close(self) -> None:
        """Close the file. Not collective."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def scan(self, tasks: int) -> np.ndarray:
        """Return which tasks are done, bool, on all ranks. Collective: each rank reads a part of the files."""
        done = np.zeros(tasks, np.uint8)
        for record, *_ in self._read():
            if record.status == DONE:
                done[record.task] = 1
        return self._world.allreduce(done, "max").astype(bool)

    def _read(self) -> Iterator[tuple[Record, int, int, int]]:
        """Yield this rank's share of the records, with the number of the file, the offset and the size."""
        for number, path in enumerate(self.files):
            if number % self._world.size == self._world.rank and path.stat().st_size:
                with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    start = 0
                    for record, end in decode(data):
                        yield record, number, start, end - start
                        start = end

    def last(self, cuts: Sequence[int]) -> Entries:
        """Return the last record of each task that this rank owns, ordered by index. Collective.

        Rank r owns the tasks from `cuts[r]` to `cuts[r + 1]`. A record of a task that is done is never replaced.
        """
        self.files = self._world.on_root(self._find)
        rows = np.array([(r.task, r.status, *place) for r, *place in self._read()], np.int64).reshape(-1, 5)
        owner = np.searchsorted(cuts, rows[:, 0], "right") - 1
        parts = self._world.comm.alltoall([rows[owner == rank] for rank in range(self._world.size)])
        rows = np.concatenate(parts)
        order = np.lexsort((rows[:, 3], rows[:, 2], rows[:, 1] == DONE, rows[:, 0]))
        rows = rows[order]
        kept = np.append(rows[1:, 0] != rows[:-1, 0], np.ones(min(1, len(rows)), bool))
        return Entries(*rows[kept].T.copy())

    def load(self, entries: Entries, batch: int) -> Iterator[list[Record]]:
        """Yield the records of entries in their order, `batch` at a time. Not collective."""
        maps: dict[int, mmap.mmap] = {}
        try:
            for first in range(0, len(entries.task), batch):
                part = []
                for number, offset, size in zip(*(x[first : first + batch].tolist() for x in entries[2:]), strict=True):
                    if number not in maps:
                        with self.files[number].open("rb") as file:
                            maps[number] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                    part.append(next(decode(maps[number][offset : offset + size], check=False))[0])
                yield part
        finally:
            for data in maps.values():
                data.close()


def read_last(folder: Path) -> dict[int, Record]:
    """Return the last record of each task in a folder; one of a task that is done is never replaced. Not collective."""
    last: dict[int, Record] = {}
    for path in sorted(file for file in folder.iterdir() if _NAME.fullmatch(file.name)):
        for record, _ in decode(path.read_bytes()):
            if record.task not in last or last[record.task].status != DONE:
                last[record.task] = record
    return last
