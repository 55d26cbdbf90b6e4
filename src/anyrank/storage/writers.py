"""The three writers of the values of a checkpoint: `pwrite`, `mpio` and `gather`."""

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
from anyrank.storage.device_to_host import DeviceToHostCopy
from anyrank.storage.durable import open_for_writing, sync_file
from anyrank.storage.seal import Extent
from anyrank.storage.staging import Staging, fetch

DigestsByName = dict[str, int]


class Writer:
    """Writes this rank's values into a file that is laid out. Subclasses are selected by their `name`."""

    name = ""
    #: The error to inject into the next checkpoint, for --chaos.
    fault: OSError | None = None

    def __init__(self, state: State):
        self.state = state

    def inject_fault(self) -> None:
        """Raise the injected error, if there is one."""
        if self.fault is not None:
            raise self.fault

    def begin(self, path: Path, extents: Mapping[str, Extent], fields: Sequence[Field]) -> None:
        """Do the part that needs an unchanged state. Collective; an error is raised on all ranks or on none."""
        raise NotImplementedError

    def write(self) -> DigestsByName:
        """Do the rest, in a thread, without MPI; return this rank's part of the Fields' digests. Raises any error."""
        raise NotImplementedError


class Pwrite(Writer):
    """Each rank copies its values, and writes its own segments of the file while steps continue."""

    name = "pwrite"

    def __init__(self, state: State):
        super().__init__(state)
        self._staged: dict[str, Staging] = {}
        self._to_host = DeviceToHostCopy(state.device) if isinstance(state.device, Gpu) else None

    def begin(self, path: Path, extents: Mapping[str, Extent], fields: Sequence[Field]) -> None:
        """See `Writer`."""
        self._path, self._extents = path, extents
        previous, self._staged = self._staged, {}
        if self._to_host is not None and not previous:  # the copies may use the memory that CuPy has cached
            self._to_host.gpu.cupy.get_default_memory_pool().free_all_blocks()
        for field in fields:
            staging = previous.pop(field.name, None)
            if staging is None or staging.source is not field.layout:  # a Table has another layout every time
                staging = Staging(field, self._to_host)
            staging.copy(field)
            self._staged[field.name] = staging

    def write(self) -> DigestsByName:
        """See `Writer`."""
        with open_for_writing(self._path) as descriptor:
            self.inject_fault()
            return {name: staging.write(descriptor, self._extents[name][0]) for name, staging in self._staged.items()}


class _Blocking(Writer):
    """A writer that writes in `begin`, while steps wait; `write` raises its errors, as with other writers."""

    def begin(self, path: Path, extents: Mapping[str, Extent], fields: Sequence[Field]) -> None:
        """See `Writer`."""
        self._path, self._fields = path, fields
        self._digests: DigestsByName = {}
        self._error: Exception | None = None
        try:
            self.inject_fault()
            self._write_fields(path)
        except Exception as error:
            self._error = error

    def write(self) -> DigestsByName:
        """See `Writer`."""
        if self._error is not None:
            raise self._error
        sync_file(self._path)
        return self._digests

    def _write_fields(self, path: Path) -> None:
        raise NotImplementedError

    def _fetch_block(self, field: Field, receive_bytes: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return this rank's block of the field, and a receive buffer for the block of another rank. Collective.

        An error of any rank is raised on all ranks, because the next calls are collective.
        """
        with self.state.world.raise_on_all_ranks(Exception):
            buffer = np.empty(receive_bytes, np.uint8)
            block = fetch(field, np.empty(field.layout.local_shape, field.dtype))
            self._digests[field.name] = digest.local_digest(block, field.shape, field.layout.start)
        return block, buffer


class Mpio(_Blocking):
    """All ranks write collectively through MPI-IO, with an h5py that was built with MPI."""

    name = "mpio"

    def __init__(self, state: State):
        super().__init__(state)
        if not h5py.get_config().mpi:
            raise UsageError(
                "--checkpoint-io mpio needs an h5py that was built with MPI, and this one was not. Use "
                "--checkpoint-io pwrite, which needs none, or build h5py with HDF5_MPI=ON."
            )

    def _write_fields(self, path: Path) -> None:
        comm = self.state.world.comm
        with h5py.File(path, "r+", driver="mpio", comm=comm, locking=False) as file:
            for field in self._fields:
                block, _ = self._fetch_block(field)
                _write_dataset(file[field.path], field, block)


def _write_dataset(dataset: Any, field: Field, block: np.ndarray) -> None:
    """Write by HDF5's own functions: h5py's indexing makes no call on a rank with an empty part."""
    transfer = h5py.h5p.create(h5py.h5p.DATASET_XFER)
    transfer.set_dxpl_mpio(h5py.h5fd.MPIO_COLLECTIVE)
    in_memory, in_file = h5py.h5s.create_simple(block.shape), dataset.id.get_space()
    if block.size:
        in_file.select_hyperslab(field.layout.start, block.shape)
    else:
        in_memory.select_none()
        in_file.select_none()
    dataset.id.write(in_memory, in_file, block, dxpl=transfer)


class Gather(_Blocking):
    """Rank 0 writes everything, one rank's part after the other: for file systems that support nothing else."""

    name = "gather"

    def __init__(self, state: State):
        super().__init__(state)
        self._tag = state.world.tag()

    def _write_fields(self, path: Path) -> None:
        parts = self._parts()
        try:
            if self.state.world.rank == 0:
                with h5py.File(path, "r+", locking=False) as file:
                    for name, brick, part in parts:
                        file[name][brick] = part
        finally:
            for _ in parts:  # rank 0 must receive the parts of the other ranks even after an error
                pass

    def _parts(self) -> Iterator[tuple[str, tuple[slice, ...], np.ndarray]]:
        """Yield the parts of all ranks of every Field on rank 0; other ranks send their parts to rank 0."""
        comm, rank = self.state.world.comm, self.state.world.rank
        for field in self._fields:
            bricks = [*field.layout.bricks_of_all()] if rank == 0 else []
            sizes = [prod(s.stop - s.start for s in brick) for _, brick in bricks]
            block, buffer = self._fetch_block(field, max(sizes[1:], default=0) * field.dtype.itemsize)
            if rank and block.size:
                comm.Send(_bytes(block), 0, self._tag)
            for (owner, brick), size in zip(bricks, sizes, strict=True):
                shape = [s.stop - s.start for s in brick]
                part = block if owner == 0 else buffer[: size * field.dtype.itemsize].view(field.dtype).reshape(shape)
                if owner and part.size:
                    comm.Recv(_bytes(part), owner, self._tag)
                if part.size:
                    yield field.path, brick, part


def _bytes(array: np.ndarray) -> np.ndarray:
    """Return the same memory as bytes, because MPI does not have every dtype."""
    return array.reshape(-1).view(np.uint8)


WRITERS: dict[str, type[Writer]] = {writer.name: writer for writer in (Pwrite, Mpio, Gather)}


def open_writer(name: str, state: State) -> Writer:
    """Return the writer of that name; raises UsageError if there is no such writer or it cannot be used here."""
    if name not in WRITERS:
        raise UsageError(f"--checkpoint-io {name!r} is not a writer: it must be one of {', '.join(WRITERS)}.")
    return WRITERS[name](state)
