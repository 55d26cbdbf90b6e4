"""HDF5 datasets whose values are written later, without HDF5, at their offset in the file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np


def contiguous(group: h5py.Group, name: str, shape: Sequence[int], dtype: np.dtype[Any]) -> h5py.Dataset:
    """Create a dataset that is allocated at once and never filled, so that its offset in the file is known."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)  # the same values give the same bytes of the file
    kind, space = h5py.h5t.py_create(dtype, logical=True), h5py.h5s.create_simple(tuple(shape))
    return h5py.Dataset(h5py.h5d.create(group.id, name.encode(), kind, space, properties))
