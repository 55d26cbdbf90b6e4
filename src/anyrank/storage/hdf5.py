"""HDF5 datasets whose values are written later, without HDF5, at their offset in the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import h5py
import numpy as np

#: Bytes copied at a time.
_COPY_BYTES = 1 << 24


def contiguous(
    group: h5py.Group, name: str, shape: Sequence[int], dtype: np.dtype[Any], fill: np.ndarray | None = None
) -> h5py.Dataset:
    """Create a dataset that is allocated at once and never filled, so that its offset in the file is known.

    `fill` is its fill value, which programs that extend the dataset use.
    """
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)  # the same values give the same bytes of the file
    if fill is not None:
        properties.set_fill_value(fill)
    kind, space = h5py.h5t.py_create(dtype, logical=True), h5py.h5s.create_simple(tuple(shape))
    return h5py.Dataset(h5py.h5d.create(group.id, name.encode(), kind, space, properties))


def fill_value(dataset: h5py.Dataset) -> np.ndarray | None:
    """Return the fill value of a dataset, or None if it has the default of HDF5."""
    if dataset.id.get_create_plist().fill_value_defined() != h5py.h5d.FILL_VALUE_USER_DEFINED:
        return None
    return np.array(dataset.fillvalue, dataset.dtype)


def like(source: h5py.Dataset, group: h5py.Group, name: str, dtype: np.dtype[Any]) -> h5py.Dataset:
    """Create a dataset with the shape, chunks, filters, fill value and attributes of another one.

    Filters that this HDF5 can only read are left out, and all storage that is not in chunks becomes contiguous.
    """
    if not source.chunks:
        target = contiguous(group, name, source.shape, dtype, fill_value(source))
    else:
        properties = source.id.get_create_plist()
        properties.set_obj_track_times(False)
        for code in [properties.get_filter(k)[0] for k in range(properties.get_nfilters())]:
            if not h5py.h5z.get_filter_info(code) & h5py.h5z.FILTER_CONFIG_ENCODE_ENABLED:
                properties.remove_filter(code)
        kind, space = h5py.h5t.py_create(dtype, logical=True), source.id.get_space()
        target = h5py.Dataset(h5py.h5d.create(group.id, name.encode(), kind, space, properties))
    copy_attributes(source, target)
    return target


def attributes_of(source: Any) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a group or dataset, except references to other objects, which are not copied."""
    for name, value in source.attrs.items():
        if not h5py.check_ref_dtype(source.attrs.get_id(name).dtype) and np.asarray(value).dtype.names is None:
            yield name, value


def copy_attributes(source: Any, target: Any) -> None:
    """Copy the attributes of a group or dataset."""
    for name, value in attributes_of(source):
        target.attrs[name] = value


def copy_rows(source: h5py.Dataset, target: h5py.Dataset) -> None:
    """Copy all rows of a dataset to one of the same shape, some chunks at a time."""
    step = (target.chunks or (1,))[0]
    row = max(1, source.dtype.itemsize * int(np.prod(source.shape[1:], dtype=np.int64)))
    step *= max(1, _COPY_BYTES // (step * row))
    for first in range(0, len(source), step):
        target[first : first + step] = source[first : first + step]
