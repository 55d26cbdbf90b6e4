"""Large inputs that all tasks share: arrays that are in memory once a node, and that workers read.

The first rank of a node writes an array into anonymous memory (memfd), of which nothing is left when the processes end,
however they end. The other ranks of the node open it, and each passes its descriptor to its worker, which maps it.
"""

from __future__ import annotations

import fcntl
import json
import math
import mmap
import os
import socket
import traceback
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from anyrank.errors import UsageError, at
from anyrank.farm.calls import load_function
from anyrank.runtime.user_files import absolute, split_source
from anyrank.storage.durable import write_atomically

if TYPE_CHECKING:
    from anyrank.world import World

#: The file with what the run began with.
KEPT = "shared.json"
#: Nobody can write to the memory any more, or change its size.
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Shared(NamedTuple):
    """A shared array: its layout, its CRC-32, and its memory: a descriptor of a process, and the inode."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    crc: int
    process: int
    descriptor: int
    inode: int

    @property
    def size(self) -> int:
        """Bytes of memory; at least one, because no memory cannot be mapped."""
        return max(1, self.dtype.itemsize * math.prod(self.shape))

    def describe(self) -> str:
        """Return what must not change when a run is resumed."""
        return f"{self.dtype} {self.shape}, CRC-32 {self.crc:08x}"

    def array(self) -> np.ndarray:
        """Return the array, read-only, and close the descriptor. Not collective."""
        memory = mmap.mmap(self.descriptor, self.size, access=mmap.ACCESS_READ)
        os.close(self.descriptor)
        array: np.ndarray = np.ndarray(self.shape, self.dtype, memory)
        return array


class SharedInputs:
    """The shared arrays of a farm. The constructor is collective.

    Parameters
    ----------
    sources : mapping
        The source of each array by name, from `parse`.
    folder : Path
        The folder for the file that tells at a resume whether an input has changed.
    world : World
        The ranks.

    Attributes
    ----------
    arrays : tuple of Shared
        The arrays, with descriptors of this process that can only be read.

    Raises
    ------
    UsageError
        On all ranks, if an array cannot be read, or is not the one that the run began with.
    """

    def __init__(self, sources: Mapping[str, str], folder: Path, world: World):
        self.arrays: tuple[Shared, ...] = ()
        if not sources:
            return
        first, written = world.node_rank == 0, []
        with world.raise_on_all_ranks():
            written = [_write(name, source) for name, source in sources.items() if first]
        on_node = world.node_gather(written)[0]
        try:
            known = world.on_root(lambda: _keep(folder / KEPT, written))
            with world.raise_on_all_ranks():
                _check_unchanged(on_node, known)
                self.arrays = tuple(map(_attach, on_node))
        finally:  # all ranks of the node have their own descriptors now
            for shared in written:
                os.close(shared.descriptor)

    def close(self) -> None:
        """Close the descriptors. Not collective."""
        for shared in self.arrays:
            os.close(shared.descriptor)
        self.arrays = ()


def parse(texts: Iterable[str]) -> dict[str, str]:
    """Return sources with absolute paths by name, from NAME=SOURCE. Raises UsageError for anything else."""
    sources: dict[str, str] = {}
    for text in texts:
        name, _, source = text.partition("=")
        if not name.isidentifier() or not (split_source(source)[1] or source.endswith(".npy") or ":/" in source):
            raise UsageError(f"--shared {text}: write NAME=FILE.npy, NAME=FILE.h5:/DATASET or NAME=FILE.py:FUNCTION.")
        if name in sources:
            raise UsageError(f"--shared {name} is given twice. Omit one of them.")
        sources[name] = absolute(source) if split_source(source)[1] else str(Path(source).absolute())
    return sources


def _write(name: str, source: str) -> Shared:
    """Write an array into new memory. Raises UsageError if it cannot be read."""
    descriptor = os.memfd_create(f"anyrank-farm-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with at(f"--shared {name}={source}"), _open(source) as array:
            if array.dtype.hasobject:
                raise UsageError(f"the dtype is {array.dtype}. Use numbers, times or texts of a fixed length.")
            inode = os.fstat(descriptor).st_ino
            shared = Shared(name, array.dtype, array.shape, 0, os.getpid(), descriptor, inode)
            return shared._replace(crc=_fill(shared, array))
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, UsageError) or not isinstance(error, Exception):
            raise
        why = f"{type(error).__name__}: {error}"
        raise UsageError(f"--shared {name}={source} cannot be read ({why}). Correct the name or the file.") from None


@contextmanager
def _open(source: str) -> Iterator[Any]:
    """Open what has a dtype and a shape: an array or a dataset."""
    if split_source(source)[1]:
        yield _call(source)
    elif source.endswith(".npy"):
        yield np.load(source, mmap_mode="r")
    else:
        import h5py

        path, _, name = source.rpartition(":/")
        with h5py.File(path, "r", locking=False) as file:
            if not isinstance(file[f"/{name}"], h5py.Dataset):
                raise UsageError(f"/{name} is a group. Name a dataset.")
            yield file[f"/{name}"]


def _call(source: str) -> np.ndarray:
    """Return the array that a function returns."""
    function = load_function(source)
    try:
        value = function()
    except (Exception, SystemExit) as error:
        trace = error.__traceback__ and error.__traceback__.tb_next
        lines = "".join(traceback.format_exception(type(error), error, trace))
        raise UsageError(f"the function raised. Fix this error:\n{lines.rstrip()}") from None
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        raise UsageError(f"the function returned {type(value).__name__}, not a NumPy array. Return one.")
    return value


def _fill(shared: Shared, array: Any) -> int:
    """Copy an array or a dataset to the memory, which is read-only then, and return its CRC-32."""
    os.ftruncate(shared.descriptor, shared.size)
    memory = mmap.mmap(shared.descriptor, shared.size)
    target: np.ndarray = np.ndarray(shared.shape, shared.dtype, memory)
    if isinstance(array, np.ndarray):
        target[...] = array
    elif target.size:
        array.read_direct(target)  # without a copy in the memory of this process
    del target  # memory that an array uses cannot be closed
    crc = zlib.crc32(memory)
    memory.close()  # memory that is mapped for writing cannot be sealed
    fcntl.fcntl(shared.descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return crc


def _keep(path: Path, arrays: Iterable[Shared]) -> dict[str, str]:
    """Return the description of each array at the first start of the run, which the file keeps."""
    if not path.exists():
        write_atomically(path, json.dumps({shared.name: shared.describe() for shared in arrays}))
    known: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return known


def _check_unchanged(arrays: Iterable[Shared], known: Mapping[str, str]) -> None:
    for shared in arrays:
        if shared.describe() != known.get(shared.name):
            raise UsageError(
                f"--shared {shared.name} is {shared.describe()} on {socket.gethostname()}, but the run began with "
                f"{known.get(shared.name)}; a run must keep its input, the same on all nodes. Restore it, or use "
                "another --out for a new run."
            )


def _attach(shared: Shared) -> Shared:
    """Open the memory that another rank of the node has written; returns it with a descriptor of this process."""
    path = f"/proc/{shared.process}/fd/{shared.descriptor}"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if os.fstat(descriptor).st_ino != shared.inode:
            os.close(descriptor)
            raise OSError("it is another process")
    except OSError as error:
        raise UsageError(
            f"--shared {shared.name}: process {os.getpid()} cannot open the memory of process {shared.process} on "
            f"{socket.gethostname()} ({error}). Ranks of a node must see each other's processes: start them in one "
            "container, or omit --shared."
        ) from None
    return shared._replace(process=os.getpid(), descriptor=descriptor)
