"""The records of a farm on disk: append-only files, one for each rank of each execution, and what they say together."""

from __future__ import annotations

import mmap
import os
import re
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anyrank.farm.tasks import DONE, HEAD, Record, decode
from anyrank.storage.durable import make_folder, sync
from anyrank.world import World

_NAME = re.compile(r"records-(\d{4})-(\d{6})")


class Entries(NamedTuple):
    """The last records of tasks, in their order: heads, and where their bodies are; arrays of equal length."""

    task: np.ndarray
    status: np.ndarray
    attempts: np.ndarray
    file: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    start: np.ndarray
    seconds: np.ndarray


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
        whole, _ = self._read()
        done[whole[whole[:, 1] == DONE, 0]] = 1
        return self._world.allreduce(done, "max").astype(bool)

    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        """Return this rank's share of the records: task, status, attempts, file, offset and size; start and seconds."""
        whole, times = array("q"), array("d")
        for number, path in enumerate(self.files):
            if number % self._world.size == self._world.rank and path.stat().st_size:
                with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    begin = 0
                    for record, end in decode(data):
                        body = begin + HEAD.size
                        whole.extend((record.task, record.status, record.attempts, number, body, end - body))
                        times.extend((record.start, record.seconds))
                        begin = end
        return np.array(whole, np.int64).reshape(-1, 6), np.array(times, np.float64).reshape(-1, 2)

    def last(self, cuts: Sequence[int]) -> Entries:
        """Return the last record of each task that this rank owns. Collective.

        Rank r owns the tasks from `cuts[r]` to `cuts[r + 1]`. A record of a task that is done is never replaced.
        """
        self.files = self._world.on_root(self._find)
        whole, times = self._read()
        owner = np.searchsorted(cuts, whole[:, 0], "right") - 1
        sent = [(whole[owner == rank], times[owner == rank]) for rank in range(self._world.size)]
        parts = self._world.comm.alltoall(sent)
        whole, times = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        order = np.lexsort((whole[:, 4], whole[:, 3], whole[:, 1] == DONE, whole[:, 0]))
        whole, times = whole[order], times[order]
        kept = np.append(whole[1:, 0] != whole[:-1, 0], np.ones(min(1, len(whole)), bool))
        return Entries(*whole[kept].T.copy(), *times[kept].T.copy())

    def bodies(self, entries: Entries) -> Iterator[bytes]:
        """Yield the bodies of records. Not collective."""
        maps: dict[int, mmap.mmap] = {}
        try:
            places = zip(entries.file.tolist(), entries.offset.tolist(), entries.size.tolist(), strict=True)
            for number, offset, size in places:
                if number not in maps:
                    with self.files[number].open("rb") as file:
                        maps[number] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                yield maps[number][offset : offset + size]
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
