"""A GPU through CuPy, or through what stands for it where there is none."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from anyrank.device.host import Device, Module
from anyrank.device.signature import Signature, find, signatures
from anyrank.device.source import flattened

#: No contraction into fused multiply-add, exact division and square root, and no flushing of float32's subnormals.
#: CuPy puts -ftz=true behind them, which wins: so no kernel of ours computes in float32, as tests/device sees to.
OPTIONS = ("--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true", "--std=c++17")

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
    """One `gpu.cu` compiled for the card in use. `cupy` is CuPy or anyrank.device.fake."""

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
        """See `Device`."""
        return self.cupy.asarray(array)

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
