"""The elements of this process that a reduction takes, and their conversion to float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from anyrank.kernel import BODIES, native
from anyrank.numerics.reduction import is_field


def local_elements(x: Any, kinds: str = "biuf") -> Any:
    """Return the elements of this process, on their device; raises TypeError for dtypes of other kinds."""
    array = native(x.local if is_field(x) else x if BODIES.device.owns(x) else np.asarray(x))
    if array.dtype.kind not in kinds or array.itemsize > (16 if array.dtype.kind == "c" else 8):
        numbers = "real or complex numbers" if "c" in kinds else "real numbers"
        raise TypeError(f"exact arithmetic takes bool, integers and {numbers} of 64 bits here, not {array.dtype}")
    return array


def real_parts(array: Any) -> tuple[Any, ...]:
    """Return the real part, and the imaginary part if the numbers are complex."""
    return (array.real, array.imag) if array.dtype.kind == "c" else (array,)


def as_doubles(x: Any) -> Iterator[Any]:
    """Return one or two arrays of float64 whose sum is `x`, exactly."""
    if x.dtype.kind in "iu" and x.itemsize == 8:
        yield (x >> 32).astype(np.float64) * 2.0**32
        x = x & 0xFFFFFFFF
    yield float64_of(x)


def flushes_subnormals(x: Any) -> bool:
    """Return whether it is float32 on a GPU, where CuPy compiles all code such that subnormals count as zeros."""
    return x.dtype == np.float32 and not isinstance(x, np.ndarray)


def float64_of(x: Any) -> Any:
    """Convert to float64; the values of subnormals of float32 on a GPU are computed from their bits."""
    if not flushes_subnormals(x):
        return x.astype(np.float64, copy=False)
    bits = x.view(np.uint32)
    size = (bits & 0x7FFFFF).astype(np.float64) * 2.0**-149
    subnormal = np.where(bits > 0x7FFFFFFF, -size, size)
    return np.where((bits & 0x7F800000) != 0, x.astype(np.float64), subnormal)
