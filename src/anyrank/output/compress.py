"""Compression of finished frames, by all ranks, into a new file that replaces the old one."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path

import h5py
import numpy as np

from anyrank.errors import AnyrankError, of_all_ranks
from anyrank.output.frames_file import LEVEL, Plan, chunk_of, lay_out
from anyrank.output.variables import Variable
from anyrank.storage.durable import publish, temporary_of
from anyrank.world import World

#: A chunk: the variable, and the index of its first element in the dataset.
Chunk = tuple[Variable, tuple[int, ...]]


def compress(world: World, path: Path, plan: Plan, steps: Sequence[int]) -> None:
    """Replace the file by one with the same frames in compressed chunks. Collective.

    The ranks compress chunks in turn, and rank 0 writes them in one order, so that the bytes do not depend on the
    ranks. AnyrankError is raised on all ranks if any rank cannot read or write; then the file is unchanged.
    """
    temporary, target = temporary_of(path), None
    chunks = [*_chunks(plan, len(steps))]
    try:
        world.on_root(lambda: lay_out(temporary, plan, steps, chunked=True) and None)
        with world.raise_on_all_ranks(Exception):
            source = h5py.File(path, "r", locking=False)
            target = h5py.File(temporary, "r+", locking=False) if world.rank == 0 else None
        with source:
            for first in range(0, len(chunks), world.size):
                _round(world, source, target, chunks[first : first + world.size])
        with world.raise_on_all_ranks(Exception):
            if target is not None:
                target.close()
        world.on_root(lambda: publish(temporary, path))
    except AnyrankError as error:
        if world.rank == 0:
            temporary.unlink(missing_ok=True)
        raise of_all_ranks(AnyrankError(f"{path} was not compressed: {error}")) from None


def _chunks(plan: Plan, frames: int) -> Iterator[Chunk]:
    for variable in plan.variables:
        chunk, shape = chunk_of(variable), (frames, *variable.shape)
        for index in np.ndindex(*(ceil(n / size) for n, size in zip(shape, chunk, strict=True))):
            yield variable, tuple(i * size for i, size in zip(index, chunk, strict=True))


def _round(world: World, source: h5py.File, target: h5py.File | None, chunks: Sequence[Chunk]) -> None:
    """Compress one chunk on each rank, and write all of them on rank 0. Collective."""
    data = b""
    with world.raise_on_all_ranks(Exception):
        if world.rank < len(chunks):
            data = _compressed(source, *chunks[world.rank])
    gathered = world.gather(data) or []
    with world.raise_on_all_ranks(Exception):
        for (variable, first), content in zip(chunks, gathered, strict=False):
            if target is not None:
                target[variable.name].id.write_direct_chunk(first, content)


def _compressed(source: h5py.File, variable: Variable, first: tuple[int, ...]) -> bytes:
    """Return a chunk, filled up with zeros, after HDF5's filters shuffle and deflate."""
    chunk = np.zeros(chunk_of(variable), variable.dtype)
    values = source[variable.name][tuple(slice(i, i + n) for i, n in zip(first, chunk.shape, strict=True))]
    chunk[tuple(slice(0, n) for n in values.shape)] = values
    shuffled = chunk.reshape(-1).view(np.uint8).reshape(-1, chunk.itemsize).T
    return zlib.compress(shuffled.tobytes(), LEVEL)
