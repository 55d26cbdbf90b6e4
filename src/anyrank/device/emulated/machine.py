"""The machine that the fake GPU is in: what ANYRANK_SHIM says of it, and what goes wrong there."""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

_LAUNCHES = count(1)


class CUDARuntimeError(RuntimeError):
    """What a device says that cannot be used."""


class OutOfMemoryError(MemoryError):
    """What a device says that is full."""


def described(name: str, default: str) -> str:
    """The value that ANYRANK_SHIM gives a name."""
    return dict(word.partition("=")[::2] for word in os.environ.get("ANYRANK_SHIM", "").split()).get(name, default)


def check(device: int, launching: bool = False) -> None:
    """Raise CUDARuntimeError where the device is lost, or is with this launch."""
    grave = Path(described("grave", ""))
    if launching and next(_LAUNCHES) > float(described("fails", "inf")):
        # Of ranks that come to it at once, one writes it.
        with suppress(FileExistsError), grave.open("x", encoding="utf-8") as file:
            file.write(str(device))
            raise CUDARuntimeError("cudaErrorECCUncorrectable: uncorrectable ECC error encountered")
    buried = grave.read_text(encoding="utf-8") if grave.is_file() else ""
    if str(device) in (described("lost", ""), buried):
        raise CUDARuntimeError("cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy or unavailable")


_PINNED: dict[int, int] = {}


def is_pinned(array: np.ndarray) -> bool:
    """Whether copies beside the computing may use the memory."""
    at = array.ctypes.data
    return any(begin <= at and at + array.nbytes <= begin + size for begin, size in list(_PINNED.items()))


def alloc_pinned_memory(size: int) -> Any:
    """Memory of the host that copies beside the computing may use."""
    memory = np.zeros(max(1, size), np.uint8)
    _PINNED[memory.ctypes.data] = memory.nbytes
    weakref.finalize(memory, _PINNED.pop, memory.ctypes.data)
    return memory


def _count() -> int:
    if gpus := int(described("gpus", "1")):
        return gpus
    raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")


runtime = SimpleNamespace(
    CUDARuntimeError=CUDARuntimeError,
    getDeviceCount=_count,
    getDeviceProperties=lambda index: {"name": b"a GPU that is not there", "uuid": bytes([index])},
    driverGetVersion=lambda: int(described("driver", "13000")),
    runtimeGetVersion=lambda: 13000,
)
