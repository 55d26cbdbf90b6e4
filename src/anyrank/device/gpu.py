"""A GPU through CuPy, or through what stands for it where there is none."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from math import prod
from operator import attrgetter
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from anyrank.device.host import Device, Module
from anyrank.device.signature import Signature, find, signatures
from anyrank.device.source import flattened

#: No contraction into fused multiply-add, exact division and square root, and no flushing of float32's subnormals.
#: CuPy puts -ftz=true behind them, which wins: so no kernel of ours computes in float32, as tests/device sees to.
OPTIONS = ("--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true", "--std=c++17")

#: Bytes of the host that are copied to a GPU at once: no more is pinned at a time, twice, and none given back.
SLICE = 1 << 24
_DTYPE = attrgetter("dtype")


class _Function:
    """A function of a module: arguments of the types that passed its check before are not checked one by one."""

    def __init__(self, signature: Signature, start: Callable[..., None]):
        self._signature, self._start = signature, start
        self._passed: tuple[list[type], list[Any]] = [], []

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
        types, (passed, dtypes) = [*map(type, arguments)], self._passed
        if types != passed or [*map(_DTYPE, arguments)] != dtypes:
            self._signature.check(arguments)
            if not any(issubclass(one, np.ndarray) for one in types):  # those of NumPy may be read-only
                self._passed = types, [*map(_DTYPE, arguments)]
        self._start(grid, block, arguments)


class GpuModule:
    """One `gpu.cu` compiled for the card in use. `cupy` is CuPy or anyrank.device.emulated.fake."""

    def __init__(self, cupy: Any, source: Path):
        self._cupy = cupy
        self._source = source
        self._signatures = signatures(source)
        self._functions: dict[str, _Function] = {}
        self._module = cupy.RawModule(code=flattened(source), options=OPTIONS, backend="nvrtc")

    def launch(self, function: str, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
        """See `Module`."""
        if function not in self._functions:
            signature = find(self._signatures, function, self._source)
            self._functions[function] = _Function(signature, self._module.get_function(function))
        self._functions[function](grid, block, arguments)

    def zeros(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Any:
        """See `Module`."""
        return self._cupy.zeros(shape, dtype)

    def to_host(self, array: Any) -> np.ndarray:
        """See `Module`."""
        return np.asarray(self._cupy.asnumpy(array))


class Buffers:
    """Two pinned buffers in turn, as large as the largest piece so far. They stay."""

    def __init__(self, gpu: Gpu):
        self._gpu = gpu
        self._buffers = [np.empty(0, np.uint8)] * 2
        self._events: list[Any] = [None, None]
        self._turn = 0

    def free_at(self, event: Any) -> None:
        """Do not use the last buffer again before the event."""
        self._events[self._turn] = event

    def next(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """The buffer that was not the last one, as an array, when it is free."""
        self._turn = 1 - self._turn
        if self._events[self._turn] is not None:
            self._events[self._turn].synchronize()
        size = prod(shape) * dtype.itemsize
        if self._buffers[self._turn].nbytes < size:
            self._buffers[self._turn] = self._gpu.pinned(size)
        return self._buffers[self._turn][:size].view(dtype).reshape(shape)


class Gpu(Device):
    """One GPU of this node, and the stream in which its kernels run: the current one of the thread that made it.

    Launches return at once. What moves beside the computing has streams of its own (`stream`), and memory of the
    host that the GPU reaches (`pinned`); events order them.
    """

    on_host = False
    ahead = 4

    def __init__(self, cupy: Any, name: str, index: int):
        self.cupy, self.name, self.index = cupy, f"{name}:{index}", index
        cupy.cuda.Device(index).use()
        self.compute = self.stream()
        # For good, and not by `use`: after a `with` of another stream CuPy has forgotten `use` (its issue 8377).
        self.compute.__enter__()
        self._paces: deque[Any] = deque()
        self._buffers, self._sending = Buffers(self), Lock()

    def stream(self) -> Any:
        """A new stream, a CuPy Stream: what is launched in it waits for no other."""
        return self.cupy.cuda.Stream(non_blocking=True)

    def enter(self) -> None:
        """Make this device that of the calling thread, which is not the one that opened it."""
        self.cupy.cuda.Device(self.index).use()

    def pinned(self, size: int) -> np.ndarray:
        """Bytes on the host that copies beside the computing may use: uint8, all zero."""
        memory = np.frombuffer(self.cupy.cuda.alloc_pinned_memory(max(1, size)), np.uint8, size)
        memory[...] = 0
        return memory

    def free_memory(self) -> tuple[int, int]:
        """Bytes of the card that are free, and all."""
        free, total = self.cupy.cuda.Device(self.index).mem_info
        return int(free), int(total)

    def owns(self, array: Any) -> bool:
        """See `Device`."""
        return isinstance(array, self.cupy.ndarray)

    def full(self, shape: tuple[int, ...], value: Any, dtype: DTypeLike) -> Any:
        """See `Device`."""
        return self.cupy.full(shape, value, dtype)

    def address(self, array: Any) -> int:
        """See `Device`."""
        return int(array.data.ptr)

    def to_host(self, array: Any) -> np.ndarray:
        """See `Device`."""
        return np.asarray(self.cupy.asnumpy(array))

    def from_host(self, array: np.ndarray) -> Any:
        """See `Device`. The array may be changed at once, and the current stream's next work sees the values.

        CuPy copies a small one through pinned memory of its own, which it rounds up to a power of two and keeps.
        """
        if array.nbytes <= SLICE:
            return self.cupy.asarray(array)
        array = np.asarray(array)
        turned = array.flags.f_contiguous and not array.flags.c_contiguous
        there = self.cupy.empty(array.shape, array.dtype.newbyteorder("="), "F" if turned else "C")
        self._send(array.T if turned else array, there.T if turned else there)
        return there

    def write(self, there: Any, values: np.ndarray) -> None:
        """See `Device`. Many values take no more of the card for a moment than a slice."""
        if values.shape == there.shape and values.size * there.itemsize > SLICE:
            self._send(values, there)
        else:
            there[...] = self.from_host(values.astype(there.dtype, copy=False))

    def _send(self, values: np.ndarray, there: Any) -> None:
        """Copy in slices, of which one is put into a buffer while the one before goes from the other."""
        stream = self.cupy.cuda.get_current_stream()
        with self._sending:
            for index in _slices(there.shape, SLICE // there.itemsize):
                part = there[index]
                buffer = self._buffers.next(part.shape, there.dtype)
                np.copyto(buffer, values[index], casting="unsafe")
                self._set(part, buffer, stream)
                self._buffers.free_at(stream.record())

    def _set(self, part: Any, values: np.ndarray, stream: Any) -> None:
        """Have the stream copy pinned values to where they belong, by way of memory without gaps if that has some."""
        there = part if part.flags.c_contiguous else self.cupy.empty(part.shape, part.dtype)
        there.set(values, stream=stream)
        if there is not part:
            part[...] = there

    def pace(self) -> None:
        """See `Device`. Stops and checkpoints need a host that is not seconds ahead of what is done."""
        self._paces.append(self.compute.record())
        if len(self._paces) > self.ahead:
            self._paces.popleft().synchronize()

    def synchronize(self) -> None:
        """See `Device`."""
        self.compute.synchronize()

    def load(self, source: Path) -> Module:
        """See `Device`."""
        return GpuModule(self.cupy, source)


def _slices(shape: Sequence[int], most: int) -> Iterator[tuple[int | slice, ...]]:
    """Where the parts of an array lie that have at most so many elements, one after the other."""
    axis = next(axis for axis in range(len(shape)) if prod(shape[axis + 1 :]) <= most)
    rows = most // prod(shape[axis + 1 :])
    for before in np.ndindex(*shape[:axis]):
        for first in range(0, shape[axis], rows):
            yield (*before, slice(first, first + rows))
