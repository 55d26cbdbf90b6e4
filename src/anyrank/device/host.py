"""The host as a device, where a rank's arrays are and its kernels run; GPUs override what differs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from anyrank.errors import UsageError

#: Bytes of a cache line; GPUs fetch the same number of bytes or twice as many.
LINE = 64


class Module(Protocol):
    """One compiled `gpu.cu`."""

    def launch(self, function: str, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
        """Launch `function` on `grid` blocks of `block` threads with arrays of the device and NumPy scalars.

        Raises TypeError unless the number and types of the arguments are those that the CUDA function declares, and
        UsageError if there is no such function.
        """

    def zeros(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Any:
        """Return a new array of the device, all zero."""

    def to_host(self, array: Any) -> np.ndarray:
        """Wait for all launches and return the values of the array as a NumPy array."""


class Device:
    """The host: its arrays are NumPy arrays. Other devices override what differs."""

    name = "host"
    #: The model and the PCI address of a GPU.
    card = ""
    on_host = True
    #: The largest number of launched steps that are not yet complete.
    ahead = 0
    #: One message for each GPU that was tried before this one and failed.
    refused: tuple[str, ...] = ()

    def owns(self, array: Any) -> bool:
        """Return whether it is an array of this device, and not of the host."""
        return False

    def full(self, shape: tuple[int, ...], value: Any, dtype: DTypeLike) -> Any:
        """Return a new array of the device filled with `value`."""
        return np.full(shape, value, dtype)

    def rows(self, shape: tuple[int, ...], value: Any, dtype: DTypeLike, first: int) -> Any:
        """Return a new array, a view, whose rows are aligned: element `first` of each row begins a cache line.

        Rows are along the last axis. Vector loads that do not cross a cache line are faster. Short rows are contiguous
        instead, if the alignment would need more than 1/16 of additional memory.
        """
        size, stride = size_of_rows(shape, dtype, first)
        if not stride:
            return self.full(shape, value, dtype)
        whole = self.full((size,), value, dtype)
        to_line = -self.address(whole) % LINE // whole.dtype.itemsize
        rows = whole[to_line : to_line + prod(shape[:-1]) * stride].reshape(*shape[:-1], stride)
        padding = -first % (LINE // whole.dtype.itemsize)
        return rows[..., padding : padding + shape[-1]]

    def address(self, array: Any) -> int:
        """Return the address of the first element of an array of the device."""
        return int(array.ctypes.data)

    def to_host(self, array: Any) -> np.ndarray:
        """Return the values of the array as a NumPy array; not a copy if the array is on the host."""
        return np.asarray(array)

    def from_host(self, array: np.ndarray) -> Any:
        """Return the values as an array of the device; not a copy if the device is the host."""
        return array

    def write(self, target: Any, values: np.ndarray) -> None:
        """Copy values of the host into an array of the device, and convert them to its dtype."""
        target[...] = values

    def pace(self) -> None:
        """Wait, after the launch of a step, until at most `ahead` steps are not complete."""

    def synchronize(self) -> None:
        """Wait until all launched work is complete."""

    def load(self, source: Path) -> Module:
        """Compile the CUDA C of `source` for this device."""
        raise UsageError(f"{source.name} cannot run on the host. Choose --body cupy on a machine with a GPU.")


def size_of_rows(shape: tuple[int, ...], dtype: DTypeLike, first: int) -> tuple[int, int]:
    """Return the number of elements that `Device.rows` allocates, and the row stride: 0 if rows are contiguous."""
    per_line = LINE // np.dtype(dtype).itemsize
    padded = -first % per_line + shape[-1]
    stride = -(-padded // per_line) * per_line  # rounded up to whole cache lines
    if stride - shape[-1] > shape[-1] // 16:
        return prod(shape), 0
    return prod(shape[:-1]) * stride + per_line, stride


def contiguous_parts(shape: Sequence[int], most: int) -> Iterator[tuple[slice, ...]]:
    """Cut an array into parts of at most `most` elements that follow each other in C order."""
    axis = next(axis for axis in range(len(shape)) if prod(shape[axis + 1 :]) <= most)
    rows, whole = most // max(1, prod(shape[axis + 1 :])), [slice(0, n) for n in shape[axis + 1 :]]
    for outer in np.ndindex(*shape[:axis]):
        for first in range(0, shape[axis], rows):
            yield (*(slice(k, k + 1) for k in outer), slice(first, min(first + rows, shape[axis])), *whole)


class ShapeOnlyDevice(Device):
    """A device whose arrays have a shape but only the memory of one element, to inspect the state of a program."""

    def rows(self, shape: tuple[int, ...], value: Any, dtype: DTypeLike, first: int) -> Any:
        """See `Device`."""
        return np.lib.stride_tricks.as_strided(np.full(1, value, dtype), shape, (0,) * len(shape))
