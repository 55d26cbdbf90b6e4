"""The machine that the fake GPU is in: what ANYRANK_SHIM says of it, and what goes wrong there."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import count
from pathlib import Path

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
        with suppress(FileExistsError), grave.open("x") as file:  # of ranks that come to it at once, one
            file.write(str(device))
            raise CUDARuntimeError("cudaErrorECCUncorrectable: uncorrectable ECC error encountered")
    buried = grave.read_text() if grave.is_file() else ""
    if str(device) in (described("lost", ""), buried):
        raise CUDARuntimeError("cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy or unavailable")
