"""A GPU through CuPy, or an emulated GPU through the same interface."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import prod
from operator import attrgetter
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from anyrank.device.host import Device, Module, contiguous_parts
from anyrank.device.signature import Signature, signature_of, signatures
from anyrank.device.source import inline_includes

#: No contraction into fused multiply-add, exact division and square root, and no flushing of float32 subnormals.
#: CuPy appends -ftz=true, which overrides ours: therefore no kernel computes in float32, which tests/device checks.
OPTIONS = ("--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true", "--std=c++17")

#: Bytes that are copied from the host to a GPU at a time. Two pinned buffers of this size exist until the end.
SLICE = 1 << 24
_DTYPE = attrgetter("dtype")


class _Function:
    """A function of a module: it checks its arguments only if their types differ from those of the last check."""

    def __init__(self, signature: Signature, start: Callable[..., None]):
        self._signature, self._start = signature, start
        self._checked_types: list[type] = []
        self._checked_dtypes: list[Any] = []

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
        types = [*map(type, arguments)]
        if types != self._checked_types or [*map(_DTYPE, arguments)] != self._checked_dtypes:
            self._signature.check(arguments)
            if not any(issubclass(kind, np.ndarray) for kind in types):  # a NumPy array may be read-only: check each
                self._checked_types, self._checked_dtypes = types, [*map(_DTYPE, arguments)]
        self._start(grid, block, arguments)


class GpuModule:
    """One `gpu.cu`, compiled for the current GPU. `cupy` is CuPy or anyrank.device.emulated.fake."""

    def __init__(self, cupy: Any, source: Path):
        self._cupy = cupy
        self._source = source
        self._signatures = signatures(source)
        self._functions: dict[str, _Function] = {}
        self._module = cupy.RawModule(code=inline_includes(source), options=OPTIONS, backend="nvrtc")

    def launch(self, function: str, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
        """See `Module`."""
        if function not in self._functions:
            signature = signature_of(self._signatures, function, self._source)
            self._functions[function] = _Function(signature, self._module.get_function(function))
        self._functions[function](grid, block, arguments)

    def zeros(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Any:
        """See `Module`."""
        return self._cupy.zeros(shape, dtype)

    def to_host(self, array: Any) -> np.ndarray:
        """See `Module`."""
        return np.asarray(self._cupy.asnumpy(array))


class PinnedBuffers:
    """Two pinned buffers, used in turn, as large as the largest piece so far. They are never freed."""

    def __init__(self, gpu: Gpu):
        self._gpu = gpu
        self._buffers = [np.empty(0, np.uint8)] * 2
        self._events: list[Any] = [None, None]
        self._turn = 0

    def free_at(self, event: Any) -> None:
        """Mark the present buffer as in use until the event."""
        self._events[self._turn] = event

    def next(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """Return the other buffer as an array, after waiting until it is free."""
        self._turn = 1 - self._turn
        if self._events[self._turn] is not None:
            self._events[self._turn].synchronize()
        size = prod(shape) * dtype.itemsize
        if self._buffers[self._turn].nbytes < size:
            self._buffers[self._turn] = self._gpu.pinned(size)
        return self._buffers[self._turn][:size].view(dtype).reshape(shape)


class Gpu(Device):
    """One GPU of this node, with the compute stream of its kernels: the current stream of the thread that opened it.

    Launches return at once. Asynchronous copies use their own streams (`stream`) and pinned memory of the host
    (`pinned`); events order the streams.
    """

    on_host = False
    ahead = 4

    def __init__(self, cupy: Any, name: str, index: int):
        self.cupy, self.name, self.index = cupy, f"{name}:{index}", index
        cupy.cuda.Device(index).use()
        self.compute = self.stream()
        # Entered and not `use`d: after a `with` of another stream CuPy forgets the stream of `use` (its issue 8377).
        self.compute.__enter__()
        self._step_events: deque[Any] = deque()
        self._buffers, self._lock = PinnedBuffers(self), Lock()

    def stream(self) -> Any:
        """Return a new CuPy Stream that does not wait for other streams."""
        return self.cupy.cuda.Stream(non_blocking=True)

    def enter(self) -> None:
        """Make this GPU current in the calling thread, if another thread opened it."""
        self.cupy.cuda.Device(self.index).use()

    def pinned(self, size: int) -> np.ndarray:
        """Return pinned memory of the host for asynchronous copies: `size` bytes as uint8, all zero."""
        memory = np.frombuffer(self.cupy.cuda.alloc_pinned_memory(max(1, size)), np.uint8, size)
        memory[...] = 0
        return memory

    def free_memory(self) -> tuple[int, int]:
        """Return the free and the total memory of the GPU, in bytes."""
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
        """See `Device`. The caller may change the array at once; later work of the current stream sees the values.

        Only small arrays are given to CuPy, because it copies them through pinned memory that it never frees, of a size
        that is rounded up to a power of two.
        """
        if array.nbytes <= SLICE:
            return self.cupy.asarray(array)
        array = np.asarray(array)
        transposed = array.flags.f_contiguous and not array.flags.c_contiguous
        target = self.cupy.empty(array.shape, array.dtype.newbyteorder("="), "F" if transposed else "C")
        self._send(array.T if transposed else array, target.T if transposed else target)
        return target

    def write(self, target: Any, values: np.ndarray) -> None:
        """See `Device`. Large arrays are copied in slices, so that only one slice needs extra GPU memory."""
        if values.shape == target.shape and values.size * target.itemsize > SLICE:
            self._send(values, target)
        else:
            target[...] = self.from_host(values.astype(target.dtype, copy=False))

    def _send(self, values: np.ndarray, target: Any) -> None:
        """Copy in slices: the host fills one pinned buffer while the GPU copies from the other."""
        stream = self.cupy.cuda.get_current_stream()
        with self._lock:
            for index in contiguous_parts(target.shape, SLICE // target.itemsize):
                part = target[index]
                buffer = self._buffers.next(part.shape, target.dtype)
                np.copyto(buffer, values[index], casting="unsafe")
                self._set(part, buffer, stream)
                self._buffers.free_at(stream.record())

    def _set(self, part: Any, values: np.ndarray, stream: Any) -> None:
        """Copy pinned values in the stream, through a contiguous array if the target is not contiguous."""
        contiguous = part if part.flags.c_contiguous else self.cupy.empty(part.shape, part.dtype)
        contiguous.set(values, stream=stream)
        if contiguous is not part:
            part[...] = contiguous

    def pace(self) -> None:
        """See `Device`. Stops and checkpoints need a host that is at most a few steps ahead of the GPU."""
        self._step_events.append(self.compute.record())
        if len(self._step_events) > self.ahead:
            self._step_events.popleft().synchronize()

    def synchronize(self) -> None:
        """See `Device`."""
        self.compute.synchronize()

    def load(self, source: Path) -> Module:
        """See `Device`."""
        return GpuModule(self.cupy, source)
