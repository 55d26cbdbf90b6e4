"""The three ways in which values get into the file: `pwrite`, `mpio` and `gather`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from anyrank.device.gpu import Gpu
from anyrank.errors import UsageError
from anyrank.field import Field
from anyrank.numerics import digest
from anyrank.state import State
from anyrank.storage.crossing import Crossing
from anyrank.storage.durable import sync_file, writing
from anyrank.storage.seal import Extent
from anyrank.storage.staging import Staging, fetch

Digests = dict[str, int]


class Way:
    """How this rank's values get into a file that is laid out. Subclasses are chosen by their `name`."""

    name = ""
    #: What the next writing meets in place of what the file system says, where --chaos asks for it.
    fault: OSError | None = None

    def __init__(self, state: State):
        self.state = state

    def meet(self) -> None:
        """Raise the fault, if there is one."""
        if self.fault is not None:
            raise self.fault

    def take(self, path: Path, extents: Mapping[str, Extent], fields: Sequence[Field]) -> None:
        """What has to be done while the state stands still. Collective; raises nothing on one rank alone."""
        raise NotImplementedError

    def write(self) -> Digests:
        """The rest, in a thread, without MPI: this rank's part of the Fields' digests. Raises any error."""
        raise NotImplementedError


class Pwrite(Way):
    """Each rank copies its values, and writes its own segments of the file while the state moves on."""

    name = "pwrite"

    def __init__(self, state: State):
        super().__init__(state)
        self._staged: dict[str, Staging] = {}
        self._crossing = Crossing(state.device) if isinstance(state.device, Gpu) else None

    def take(self, path: Path, extents: Mapping[str, Extent], fields: Sequence[Field]) -> None:
        """See `Way`."""
        self._path, self._extents = path, extents
        before, self._staged = self._staged, {}
        if self._crossing is not None and not before:  # for the copies, what CuPy keeps for later is free, too
            self._crossing.gpu.cupy.get_default_memory_pool().free_all_blocks()
        for field in fields:
            staged = before.pop(field.name, None)
            if staged is None or staged.source is not field.layout:  # a Table has another layout every time
                staged = Staging(field, self._crossing)
            staged.take(field)
            self._staged[field.name] = staged

    def write(self) -> Digests:
        """See `Way`."""
        with writing(self._path) as descriptor:
            self.meet()
            return {name: staged.write(descriptor, self._extents[name][0]) for name, staged in self._staged.items()}


class _Blocking(Way):
    """A way that writes while the state stands still; of an error it tells later, as the others do."""

    def take(self, path: Path, extents: Mapping[str, Extent], fields: Sequence[Field]) -> None:
        """See `Way`."""
        self._path, self._fields = path, fields
        self._digests: Digests = {}
        self._error: Exception | None = None
        try:
            self.meet()
            self._write_all(path)
        except Exception as error:
            self._error = error

    def write(self) -> Digests:
        """See `Way`."""
        if self._error is not None:
            raise self._error
        sync_file(self._path)
        return self._digests

    def _write_all(self, path: Path) -> None:
        raise NotImplementedError

    def _block(self, field: Field, others: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """The field's values here, and room for some bytes of other ranks'. Collective.

        An error of any rank is raised on all: what follows takes all of them, and one that left would be waited for.
        """
        with self.state.world.raise_on_all_ranks(Exception):
            room = np.empty(others, np.uint8)
            block = fetch(field, np.empty(field.layout.local_shape, field.dtype))
            self._digests[field.name] = digest.local_digest(block, field.shape, field.layout.start)
        return block, room


class Mpio(_Blocking):
    """All ranks write together through MPI-IO, by an h5py that was built with MPI."""

    name = "mpio"

    def __init__(self, state: State):
        super().__init__(state)
        if not h5py.get_config().mpi:
            raise UsageError(
                "--checkpoint-io mpio needs an h5py that was built with MPI, and this one was not. Use "
                "--checkpoint-io pwrite, which needs none, or build h5py with HDF5_MPI=ON."
            )

    def _write_all(self, path: Path) -> None:
        comm = self.state.world.comm
        with h5py.File(path, "r+", driver="mpio", comm=comm, locking=False) as file:
            for field in self._fields:
                block, _ = self._block(field)
                _write_together(file[field.path], field, block)


def _write_together(dataset: Any, field: Field, block: np.ndarray) -> None:
    """Below h5py's indexing, which leaves a rank with an empty part out of what must be collective."""
    together = h5py.h5p.create(h5py.h5p.DATASET_XFER)
    together.set_dxpl_mpio(h5py.h5fd.MPIO_COLLECTIVE)
    here, there = h5py.h5s.create_simple(block.shape), dataset.id.get_space()
    if block.size:
        there.select_hyperslab(field.layout.start, block.shape)
    else:
        here.select_none()
        there.select_none()
    dataset.id.write(here, there, block, dxpl=together)


class Gather(_Blocking):
    """Rank 0 writes everything, one rank's part after the other: for file systems where nothing else is safe."""

    name = "gather"

    def __init__(self, state: State):
        super().__init__(state)
        self._tag = state.world.tag()

    def _write_all(self, path: Path) -> None:
        parts = self._parts()
        try:
            if self.state.world.rank == 0:
                with h5py.File(path, "r+", locking=False) as file:
                    for where, brick, part in parts:
                        file[where][brick] = part
        finally:
            for _ in parts:  # the others' parts must be received, whatever happened here
                pass

    def _parts(self) -> Iterator[tuple[str, tuple[slice, ...], np.ndarray]]:
        """On rank 0 every rank's parts of every Field; elsewhere this rank's parts go to rank 0."""
        comm, rank = self.state.world.comm, self.state.world.rank
        for field in self._fields:
            bricks = [*field.layout.bricks_of_all()] if rank == 0 else []
            sizes = [prod(s.stop - s.start for s in brick) for _, brick in bricks]
            block, room = self._block(field, max(sizes[1:], default=0) * field.dtype.itemsize)
            if rank and block.size:
                comm.Send(_bytes(block), 0, self._tag)
            for (owner, brick), size in zip(bricks, sizes, strict=True):
                shape = [s.stop - s.start for s in brick]
                part = block if owner == 0 else room[: size * field.dtype.itemsize].view(field.dtype).reshape(shape)
                if owner and part.size:
                    comm.Recv(_bytes(part), owner, self._tag)
                if part.size:
                    yield field.path, brick, part


def _bytes(array: np.ndarray) -> np.ndarray:
    """The same memory as bytes, which MPI has for every dtype."""
    return array.reshape(-1).view(np.uint8)


WAYS: dict[str, type[Way]] = {way.name: way for way in (Pwrite, Mpio, Gather)}


def way_called(name: str, state: State) -> Way:
    """The way of that name; raises UsageError where there is none, or where it cannot be used here."""
    if name not in WAYS:
        raise UsageError(f"--checkpoint-io {name!r} is not a way to write: it must be one of {', '.join(WAYS)}.")
    return WAYS[name](state)
