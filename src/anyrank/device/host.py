"""The host as a device: where a rank's arrays live and its kernels run; GPUs override what differs."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from anyrank.errors import UsageError

#: Bytes of a cache line; GPUs fetch as many, too, or twice as many.
LINE = 64


class Module(Protocol):
    """One compiled `gpu.cu`."""

    def launch(self, function: str, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
        """Start `function` on `grid` blocks of `block` threads with arrays of the device and NumPy scalars.

        Raises TypeError unless their number and types are those that the CUDA function declares, and
        UsageError if there is no such function.
        """

    def zeros(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Any:
        """A new array of the device, all zero."""

    def to_host(self, array: Any) -> np.ndarray:
        """The array's values as a NumPy array, when all that was launched is done."""


class Device:
    """The host: arrays are NumPy's. Other devices override what differs."""

    name = "host"
    #: A GPU's model and PCI address.
    card = ""
    on_host = True
    #: How many steps may have been launched and not be done.
    ahead = 0
    #: The device's other names that were tried before and failed, with the reason.
    refused: tuple[str, ...] = ()

    def owns(self, array: Any) -> bool:
        """Whether it is an array of this device and none of the host."""
        return False

    def full(self, shape: tuple[int, ...], value: Any, dtype: DTypeLike) -> Any:
        """A new array of the device filled with `value`."""
        return np.full(shape, value, dtype)

    def rows(self, shape: tuple[int, ...], value: Any, dtype: DTypeLike, first: int) -> Any:
        """The same, but element `first` of every row along the last axis begins a cache line: a view.

        Vectors that cross no line cost less. Rows too short for it, where it would take more than a sixteenth of
        memory more, lie one after the other.
        """
        size, width = size_of_rows(shape, dtype, first)
        if not width:
            return self.full(shape, value, dtype)
        whole = self.full((size,), value, dtype)
        skipped = -self.address(whole) % LINE // whole.dtype.itemsize
        rows = whole[skipped : skipped + prod(shape[:-1]) * width].reshape(*shape[:-1], width)
        before = -first % (LINE // whole.dtype.itemsize)
        return rows[..., before : before + shape[-1]]

    def address(self, array: Any) -> int:
        """Where an array of the device begins."""
        return int(array.ctypes.data)

    def to_host(self, array: Any) -> np.ndarray:
        """The array's values as a NumPy array; no copy where the array is on the host already."""
        return np.asarray(array)

    def from_host(self, array: np.ndarray) -> Any:
        """The values as an array of the device; no copy on the host."""
        return array

    def write(self, there: Any, values: np.ndarray) -> None:
        """Put values of the host into an array of the device, converted to its type as on the host."""
        there[...] = values

    def pace(self) -> None:
        """A step has been launched: wait until no more than a few are to be done."""

    def synchronize(self) -> None:
        """Wait until all that was launched is done."""

    def load(self, source: Path) -> Module:
        """The CUDA C of `source`, compiled for this device."""
        raise UsageError(f"{source.name} cannot run on the host. Choose --body cupy on a machine with a GPU.")


def size_of_rows(shape: tuple[int, ...], dtype: DTypeLike, first: int) -> tuple[int, int]:
    """How many elements `Device.rows` takes in all, and from row to row: 0 where they lie one after the other."""
    per = LINE // np.dtype(dtype).itemsize
    width = -(-(-first % per + shape[-1]) // per) * per
    if width - shape[-1] > shape[-1] // 16:
        return prod(shape), 0
    return prod(shape[:-1]) * width + per, width


class Weightless(Device):
    """Arrays of any shape in the memory of one element: what a program declares, before any of it is there."""

    def rows(self, shape: tuple[int, ...], value: Any, dtype: DTypeLike, first: int) -> Any:
        """See `Device`."""
        return np.lib.stride_tricks.as_strided(np.full(1, value, dtype), shape, (0,) * len(shape))
