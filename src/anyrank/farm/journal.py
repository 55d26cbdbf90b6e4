"""The records of a farm on disk: append-only files, one for each rank of each execution, and what they say together."""

from __future__ import annotations

import mmap
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anyrank.errors import AnyrankError, of_all_ranks
from anyrank.farm.tasks import DONE, HEAD, Record, decode
from anyrank.storage.durable import make_folder, sync
from anyrank.world import World

_NAME = re.compile(r"records-(\d{4})-(\d{6})")
#: `HEAD` as a type of NumPy.
_HEAD = np.dtype(
    [
        ("size", "<u4"),
        ("crc", "<u4"),
        ("task", "<i8"),
        ("attempts", "<u2"),
        ("status", "u1"),
        ("start", "<f8"),
        ("seconds", "<f8"),
    ]
)
#: The place of a record is one number: a bit for tasks that are done, 22 bits for the number of the file, and 40 bits
#: for the offset. The last record of a task is the one with the largest place.
_DONE_BIT, _FILE_BITS, _OFFSET_BITS = 62, 22, 40
#: Records of a file that are read at a time.
_SOME = 1 << 12


class Entries(NamedTuple):
    """Records of tasks: arrays of equal length with their heads and the numbers of their files, and their bodies."""

    heads: np.ndarray
    file: np.ndarray
    bodies: list[bytes]


class Records:
    """The records of a farm in a folder. The constructor is collective.

    A record is valid if it is complete and its CRC-32 is right: a killed process may leave a part of one at the end.
    """

    def __init__(self, folder: Path, world: World):
        self._folder, self.world = folder, world
        self.files: list[Path] = world.on_root(lambda: self._find())
        numbers = [int(match[1]) for file in self.files if (match := _NAME.fullmatch(file.name))]
        #: The files of this execution, by rank; those of earlier ones come before them.
        self._new = [folder / f"records-{1 + max(numbers, default=0):04}-{rank:06}" for rank in range(world.size)]
        self._path, self._file, self._size = self._new[world.rank], -1, 0
        self._earlier = self.files

    def _find(self) -> list[Path]:
        make_folder(self._folder)
        return sorted(file for file in self._folder.iterdir() if _NAME.fullmatch(file.name))

    def execution(self, number: int) -> int:
        """Return the number of the execution of the run, from 1, that wrote a file."""
        return int(self.files[number].name.split("-")[1])

    def rank_of(self, number: int) -> int:
        """Return the rank that wrote a file."""
        return int(self.files[number].name.split("-")[2])

    def write(self, records: bytes) -> int:
        """Append encoded records, which a kill of this process cannot undo; returns their place. Not collective.

        The place of a later one is larger by the bytes before it.
        """
        if self._file < 0:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        data = memoryview(records)
        while data:
            data = data[os.write(self._file, data) :]
        place = len(self._earlier) + self.world.rank << _OFFSET_BITS | self._size
        self._size += len(records)
        return 1 << _DONE_BIT | place

    def body(self, place: int) -> bytes:
        """Return the body of a record of an earlier execution, or of what a rank has written in this one."""
        number, offset = place >> _OFFSET_BITS & ((1 << _FILE_BITS) - 1), place & ((1 << _OFFSET_BITS) - 1)
        with [*self._earlier, *self._new][number].open("rb") as file:
            file.seek(offset)
            size = HEAD.unpack(file.read(HEAD.size))[0]
            return file.read(size)

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
        """Return the places of the records of tasks that are done, on all ranks; −1 for others. Collective.

        Each rank reads a part of the files.
        """
        places = np.full(tasks, -1)
        for number, task, status, offset in self._read():
            done = status == DONE
            np.maximum.at(places, task[done], 1 << _DONE_BIT | number << _OFFSET_BITS | offset[done])
        return self.world.allreduce(places, "max")

    def _read(self) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield this rank's share of the records, some at a time: number of the file; task, status and offset."""
        for number, path in enumerate(self.files):
            if number % self.world.size == self.world.rank:
                heads = heads_of(path)
                while some := [*islice(heads, _SOME)]:
                    task, status, offset = np.array(some, np.int64).T
                    yield number, task, status, offset

    def size(self) -> int:
        """Return the bytes of all files. Collective."""
        return self.world.on_root(lambda: sum(file.stat().st_size for file in self._find()))

    def last(self, cuts: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Return the places of the last records of tasks, for `read`. Collective.

        A record of a task that is done is never replaced.

        Parameters
        ----------
        cuts : sequence of sequences of int
            For each block of tasks, the borders of the tasks of each rank; the blocks follow each other.

        Returns
        -------
        list of int64 array
            The places for this rank's tasks of each block.

        Raises
        ------
        AnyrankError
            On all ranks, if a task has no record.
        """
        self.files = self.world.on_root(self._find)
        places, rank = np.full(cuts[-1][-1], -1), self.world.rank
        for number, task, status, offset in self._read():
            done = (status == DONE).astype(np.int64)
            np.maximum.at(places, task, done << _DONE_BIT | number << _OFFSET_BITS | offset)
        parts = []
        for borders in cuts:
            first, last = borders[0], borders[-1]
            block = self.world.allreduce(places[first:last], "max")
            if len(block) and block.min() < 0:
                raise of_all_ranks(
                    AnyrankError(
                        f"task {first + int(block.argmin())} has no record in {self._folder}: files there were removed "
                        "or changed while the farm ran. `anyrank resume` does what is missing."
                    )
                )
            parts.append(block[borders[rank] - first : borders[rank + 1] - first].copy())
        return parts

    def read(self, places: np.ndarray, bodies: bool = True) -> Entries:
        """Return the records at some places, with or without their bodies. Not collective."""
        files = places >> _OFFSET_BITS & ((1 << _FILE_BITS) - 1)
        offsets = places & ((1 << _OFFSET_BITS) - 1)
        contents = [b""] * len(places)
        entries = Entries(np.zeros(len(places), _HEAD), files, contents)
        for number in np.unique(files).tolist():
            rows = np.flatnonzero(files == number)
            with self.files[number].open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                heads = np.frombuffer(data, np.uint8)[offsets[rows, None] + np.arange(HEAD.size)]
                entries.heads[rows] = heads.view(_HEAD)[:, 0]
                if bodies:
                    begins = offsets[rows] + HEAD.size
                    ends = begins + entries.heads["size"][rows]
                    for row, begin, end in zip(rows.tolist(), begins.tolist(), ends.tolist(), strict=True):
                        contents[row] = data[begin:end]
        return entries


def heads_of(path: Path) -> Iterator[tuple[int, int, int]]:
    """Yield task, status and offset of the records of a file; stops at one that is damaged or not complete."""
    size, begin = path.stat().st_size, 0
    with path.open("rb", 1 << 20) as file:
        while len(head := file.read(HEAD.size)) == HEAD.size:
            length, crc, task, _, status, _, _ = HEAD.unpack(head)
            end = begin + HEAD.size + length
            if end > size or zlib.crc32(file.read(length)) != crc:
                return
            yield task, status, begin
            begin = end


def read_last(folder: Path) -> dict[int, Record]:
    """Return the last record of each task in a folder; one of a task that is done is never replaced. Not collective."""
    last: dict[int, Record] = {}
    for path in sorted(file for file in folder.iterdir() if _NAME.fullmatch(file.name)):
        for record, _ in decode(path.read_bytes()):
            if record.task not in last or last[record.task].status != DONE:
                last[record.task] = record
    return last
