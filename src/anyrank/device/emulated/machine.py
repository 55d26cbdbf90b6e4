"""The machine of the emulated GPU: the settings in ANYRANK_SHIM, and its faults."""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

_LAUNCHES = count(1)


class CUDARuntimeError(RuntimeError):
    """The device cannot be used."""


class OutOfMemoryError(MemoryError):
    """The device has too little free memory."""


def setting(name: str, default: str) -> str:
    """Return the value of a name in ANYRANK_SHIM."""
    return dict(word.partition("=")[::2] for word in os.environ.get("ANYRANK_SHIM", "").split()).get(name, default)


def check(device: int, launching: bool = False) -> None:
    """Raise CUDARuntimeError if the device is lost, or becomes lost by this launch."""
    fault_file = Path(setting("fault_file", ""))
    if launching and next(_LAUNCHES) > float(setting("fails", "inf")):
        # If several ranks reach this launch, only one creates the file and loses its device.
        with suppress(FileExistsError), fault_file.open("x", encoding="utf-8") as file:
            file.write(str(device))
            raise CUDARuntimeError("cudaErrorECCUncorrectable: uncorrectable ECC error encountered")
    lost_devices = {setting("lost", ""), fault_file.read_text(encoding="utf-8") if fault_file.is_file() else ""}
    if str(device) in lost_devices:
        raise CUDARuntimeError("cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy or unavailable")


_PINNED: dict[int, int] = {}


def is_pinned(array: np.ndarray) -> bool:
    """Return whether the array is in pinned memory."""
    at = array.ctypes.data
    return any(begin <= at and at + array.nbytes <= begin + size for begin, size in list(_PINNED.items()))


def alloc_pinned_memory(size: int) -> Any:
    """Allocate pinned memory of the host."""
    memory = np.zeros(max(1, size), np.uint8)
    _PINNED[memory.ctypes.data] = memory.nbytes
    weakref.finalize(memory, _PINNED.pop, memory.ctypes.data)
    return memory


def _count() -> int:
    if gpus := int(setting("gpus", "1")):
        return gpus
    raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")


runtime = SimpleNamespace(
    CUDARuntimeError=CUDARuntimeError,
    getDeviceCount=_count,
    getDeviceProperties=lambda index: {"name": b"an emulated GPU", "uuid": bytes([index])},
    driverGetVersion=lambda: int(setting("driver", "13000")),
    runtimeGetVersion=lambda: 13000,
)


#: Allocated bytes, by device.
in_use: Counter[int] = Counter()
#: The current device and streams of each thread, and all streams.
THREAD = threading.local()
STREAMS: weakref.WeakSet[Any] = weakref.WeakSet()


class Device:
    """One of the devices; `use` makes it current in this thread."""

    def __init__(self, index: int | None = None):
        self.id: int = getattr(THREAD, "device", 0) if index is None else index
        self.pci_bus_id = f"0000:{self.id:02X}:00.0"

    def use(self) -> Device:
        """Make the device current in this thread."""
        THREAD.device = self.id
        return self

    @property
    def mem_info(self) -> tuple[int, int]:
        """The free and the total memory, in bytes."""
        total = int(float(setting("memory", str(1 << 40))))
        return total - in_use[self.id], total

    def synchronize(self) -> None:
        """Run all launched work."""
        for stream in list(STREAMS):
            stream.synchronize()
