"""Arrays and Fields for tests of reductions, and how their results are compared."""

from __future__ import annotations

import numpy as np

from anyrank.kernel import BODIES


def numbers(shape, dtype=np.float64, seed=4):
    """Numbers of many magnitudes; integers for an integer dtype."""
    random = np.random.default_rng(seed)
    parts = random.standard_normal((2, *shape)) * 2.0 ** random.integers(-60, 60, (2, *shape))
    if np.dtype(dtype).kind == "c":
        return (parts[0] + 1j * parts[1]).astype(dtype)
    return (random.integers(-100, 100, shape) if np.dtype(dtype).kind in "iu" else parts[0]).astype(dtype)


def equal(found, expected):
    """Whether two arrays have equal values, shapes and dtypes."""
    return type(found) is type(expected) and found.dtype == expected.dtype and np.array_equal(found, expected)


def put(x):
    """The array on the device of this process."""
    return x if BODIES.device.on_host else BODIES.device.from_host(x)


def make_field(state, name, x, components=False):
    """A Field with the values of an array; of components, the first axis is theirs."""
    grid = state.grid(x.shape[1:] if components else x.shape, halo=0)
    field = grid.field(name, x.dtype, components=len(x) if components else None)
    field[...] = x[field.layout.slices]
    return field


def error_of(action):
    """The error that an action raises."""
    try:
        action()
    except Exception as error:
        return error
    return None
