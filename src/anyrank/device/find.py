"""Which GPU a rank takes: what is looked for, and tried, before a run relies on it."""

from __future__ import annotations

import ctypes
import importlib
from pathlib import Path
from typing import Any

import numpy as np

from anyrank.device.gpu import OPTIONS, Gpu
from anyrank.errors import UsageError

_TRIAL = """extern "C" __global__ void trial(unsigned int* out) {
    out[threadIdx.x] = 3u * threadIdx.x + 1u;
}"""


def open_gpu(body: str, node_rank: int) -> Gpu:
    """A GPU of this node: in turn by `node_rank`, or the next one that computes where that one does not.

    Nothing is believed: the device must allocate, compile, run and copy. UsageError where none does.
    """
    name = "cupy" if body == "cupy" else "anyrank.device.emulated.fake"
    if refusal := gpu_missing() if body == "cupy" else _refusal(importlib.import_module(name)):
        raise UsageError(f"--body {body}: {refusal}. Use --body auto, or run where a GPU is.")
    cupy = importlib.import_module(name)
    count, failed = cupy.cuda.runtime.getDeviceCount(), []
    for index in ((node_rank + k) % count for k in range(count)):
        try:
            gpu = Gpu(cupy, "cuda" if body == "cupy" else body, index)
            _try(gpu)
            gpu.card = _card(cupy, index)  # it is known even when the GPU has failed since
        except UsageError:  # there is no compiler for the fake one
            raise
        except Exception as error:  # CuPy has many, and of them those of its compiler share no base with others
            failed.append(_unusable(index, error))
            continue
        gpu.refused = tuple(failed)
        return gpu
    raise UsageError(
        f"--body {body}: {count} GPU(s) found: {'; '.join(failed)}. Look at them with nvidia-smi, or "
        "use --body auto, which runs on the CPU without."
    )


def _try(gpu: Gpu) -> None:
    found = gpu.full((64,), 0, np.uint32)
    gpu.cupy.RawModule(code=_TRIAL, options=OPTIONS, backend="nvrtc").get_function("trial")((1,), (64,), (found,))
    if not np.array_equal(gpu.to_host(found), np.arange(1, 3 * 64, 3)):
        raise RuntimeError("it computes nonsense")


def _card(cupy: Any, index: int) -> str:
    name = cupy.cuda.runtime.getDeviceProperties(index)["name"].decode()
    return f"{name} {cupy.cuda.Device(index).pci_bus_id}"


def _unusable(index: int, error: BaseException) -> str:
    return f"GPU {index} cannot be used ({first_line(error)})"


def first_line(error: BaseException) -> str:
    """What an error says first, or its name where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def is_device_error(error: BaseException) -> bool:
    """Whether a GPU says so: of CuPy's own errors, without importing it."""
    return type(error).__name__ in ("CUDARuntimeError", "CUDADriverError", "OutOfMemoryError")


def gpus_here() -> str:
    """The GPUs that CuPy finds, with their memory, and the driver, as text; or why none can be used."""
    if missing := gpu_missing():
        return missing
    cupy, found = importlib.import_module("cupy"), []
    for index in range(cupy.cuda.runtime.getDeviceCount()):
        try:
            free, total = cupy.cuda.Device(index).mem_info
            found.append(f"{_card(cupy, index)}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free")
        except RuntimeError as error:
            found.append(_unusable(index, error))
    return f"{'; '.join(found)}; driver for CUDA up to {_version(cupy.cuda.runtime.driverGetVersion())}"


def gpu_missing() -> str:
    """Why no GPU can be used here, or an empty string where CuPy finds one. Tries none."""
    if not _has_driver():  # asked first, because importing CuPy takes a good part of a second
        return "there is no NVIDIA driver (no /dev/nvidiactl, no libcuda.so.1)"
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        plain = first_line(error.__cause__ or error)  # CuPy puts a page of advice around it
        return f"there is an NVIDIA driver, but CuPy cannot be imported ({plain})"
    return _refusal(cupy)


def _refusal(cupy: Any) -> str:
    """What is wrong with the driver, or that it shows no device; an empty string where nothing is."""
    runtime = cupy.cuda.runtime
    driver, needed = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    if not driver:
        return "there is an NVIDIA driver, but CuPy cannot load it (libcuda.so.1). Install the driver's libraries"
    if driver // 1000 < needed // 1000:
        return (
            f"the NVIDIA driver is too old: it runs CUDA up to {_version(driver)}, and CuPy {cupy.__version__} is made "
            f"for {_version(needed)}. Update the driver, or install the CuPy for CUDA {driver // 1000}.x"
        )
    try:
        runtime.getDeviceCount()
    except RuntimeError as error:
        why = f"CUDA_VISIBLE_DEVICES, or the job's request? {first_line(error)}"
        return f"there is an NVIDIA driver, but it shows no GPU ({why})"
    return ""


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _has_driver() -> bool:
    if any(Path(sign).exists() for sign in ("/dev/nvidiactl", "/proc/driver/nvidia/version")):
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
