"""A GPU through CuPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from anyrank.device import Device, Module, gpu_missing
from anyrank.device.signature import find, signatures
from anyrank.device.source import flattened
from anyrank.errors import UsageError

#: No contraction into fused multiply-add, no flushing of subnormals, exact division and square root.
OPTIONS = ("--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true", "--std=c++17")


class CudaModule:
    """One `gpu.cu` compiled by NVRTC for the card in use."""

    def __init__(self, source: Path):
        import cupy

        self._cupy = cupy
        self._source = source
        self._functions = signatures(source)
        self._module = cupy.RawModule(code=flattened(source), options=OPTIONS, backend="nvrtc")

    def launch(self, function: str, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
        """See `Module`."""
        find(self._functions, function, self._source).check(arguments)
        self._module.get_function(function)(grid, block, arguments)

    def zeros(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Any:
        """See `Module`."""
        return self._cupy.zeros(shape, dtype)

    def to_host(self, array: Any) -> np.ndarray:
        """See `Module`."""
        return np.asarray(self._cupy.asnumpy(array))


class CudaDevice(Device):
    """One GPU of this node; ranks of a node take its GPUs in turn and may share them."""

    on_host = False

    def __init__(self, node_rank: int):
        missing = gpu_missing()
        if missing:
            raise UsageError(f"--body cupy: {missing}. Use --body auto, or run where a GPU is.")
        import cupy

        self._cupy = cupy
        index = node_rank % cupy.cuda.runtime.getDeviceCount()
        cupy.cuda.Device(index).use()
        self.name = f"cuda:{index}"

    def full(self, shape: tuple[int, ...], value: Any, dtype: DTypeLike) -> Any:
        """See `Device`."""
        return self._cupy.full(shape, value, dtype)

    def address(self, array: Any) -> int:
        """See `Device`."""
        return int(array.data.ptr)

    def to_host(self, array: Any) -> np.ndarray:
        """See `Device`."""
        return np.asarray(self._cupy.asnumpy(array))

    def from_host(self, array: np.ndarray) -> Any:
        """See `Device`."""
        return self._cupy.asarray(array)

    def load(self, source: Path) -> Module:
        """See `Device`."""
        return CudaModule(source)
