"""Where the elements of an HDF5 dataset are in its file, and whether they are there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from h5py import h5d

from anyrank.errors import UsageError

#: Rows that may have the fill value because they were never written.
_MOST_UNWRITTEN = 1 << 30


def check_stored(path: Path, dataset: Any) -> None:
    """Raise UsageError if a dataset is not all in its file, or if it declares many rows and stores few.

    Rows that were never written have a fill value, so a few bytes can declare any number of them.
    """
    storage, size = dataset.id, path.stat().st_size
    extents: list[tuple[int, int]] = []
    stored, needed, element = len(dataset), 0, storage.get_type().get_size()
    if dataset.chunks:
        if not storage.get_create_plist().get_nfilters():
            needed = math.prod(dataset.chunks) * element
        storage.chunk_iter(lambda chunk: extents.append((chunk.byte_offset, chunk.size)))
        per_row = math.prod(-(-n // chunk) for n, chunk in zip(dataset.shape[1:], dataset.chunks[1:], strict=True))
        stored = len(extents) // max(1, per_row) * dataset.chunks[0]
    elif not (dataset.is_virtual or dataset.external or storage.get_create_plist().get_layout() == h5d.COMPACT):
        offset = storage.get_offset()
        extents = [] if offset is None else [(offset, storage.get_storage_size())]
        stored = len(dataset) if extents else 0
        needed = dataset.size * element
    # HDF5 reads what it finds behind a part that is too short, and not the same in every call.
    if any(begin + count > size or count < needed for begin, count in extents):
        raise UsageError(f"{path} is damaged: dataset {dataset.name} is not all in the file. Replace the file.")
    if len(dataset) - stored > _MOST_UNWRITTEN:
        raise UsageError(
            f"{path}: dataset {dataset.name} declares {len(dataset)} rows and stores {stored}; at most "
            f"{_MOST_UNWRITTEN} may be unwritten. Write its rows, or shorten it."
        )


def chunk_bytes(dataset: Any) -> int:
    """Return the bytes that must be decoded to read one row of a dataset: those of a compressed chunk."""
    filters = dataset.id.get_create_plist().get_nfilters() if dataset.chunks else 0
    return math.prod(dataset.chunks) * int(dataset.dtype.itemsize) if filters else 0
