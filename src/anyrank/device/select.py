"""Select the GPU of a rank, and test it before a run relies on it."""

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
    """Open the GPU whose number is `node_rank` modulo the number of GPUs of this node, or the next one that works.

    A GPU works if a test on it can allocate, compile, run and copy. Raises UsageError if no GPU works.
    """
    name = "cupy" if body == "cupy" else "anyrank.device.emulated.fake"
    problem = gpu_missing() if body == "cupy" else _problem(importlib.import_module(name))
    if problem:
        raise UsageError(f"--body {body}: {problem}. Use --body auto, or run on a machine with a GPU.")
    cupy = importlib.import_module(name)
    count, failed = cupy.cuda.runtime.getDeviceCount(), []
    for index in ((node_rank + k) % count for k in range(count)):
        try:
            gpu = Gpu(cupy, "cuda" if body == "cupy" else body, index)
            _try(gpu)
            gpu.card = _card(cupy, index)  # stored now, because a GPU that fails later does not answer
        except UsageError:  # the emulated GPU has no compiler
            raise
        except Exception as error:  # CuPy's errors have no common base class
            failed.append(_unusable(index, error))
            continue
        gpu.refused = tuple(failed)
        return gpu
    raise UsageError(
        f"--body {body}: {count} GPU(s) found: {'; '.join(failed)}. Check them with nvidia-smi, or "
        "use --body auto, which runs on the CPU if no GPU works."
    )


def _try(gpu: Gpu) -> None:
    result = gpu.full((64,), 0, np.uint32)
    gpu.cupy.RawModule(code=_TRIAL, options=OPTIONS, backend="nvrtc").get_function("trial")((1,), (64,), (result,))
    if not np.array_equal(gpu.to_host(result), np.arange(1, 3 * 64, 3)):
        raise RuntimeError("it computes wrong values")


def _card(cupy: Any, index: int) -> str:
    name = cupy.cuda.runtime.getDeviceProperties(index)["name"].decode()
    return f"{name} {cupy.cuda.Device(index).pci_bus_id}"


def _unusable(index: int, error: BaseException) -> str:
    return f"GPU {index} cannot be used ({first_line(error)})"


def first_line(error: BaseException) -> str:
    """Return the first line of an error message, or the name of the error if the message is empty."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def is_device_error(error: BaseException) -> bool:
    """Return whether it is an error of a GPU: recognizes CuPy's errors by name, without importing CuPy."""
    return type(error).__name__ in ("CUDARuntimeError", "CUDADriverError", "OutOfMemoryError")


def gpus_here() -> str:
    """Return a text with the GPUs that CuPy finds, their memory and the driver, or the reason why there is none."""
    if missing := gpu_missing():
        return missing
    cupy, gpus = importlib.import_module("cupy"), []
    for index in range(cupy.cuda.runtime.getDeviceCount()):
        try:
            free, total = cupy.cuda.Device(index).mem_info
            gpus.append(f"{_card(cupy, index)}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free")
        except RuntimeError as error:
            gpus.append(_unusable(index, error))
    return f"{'; '.join(gpus)}; driver for CUDA up to {_version(cupy.cuda.runtime.driverGetVersion())}"


def gpu_missing() -> str:
    """Return the reason why no GPU can be used, or an empty string if CuPy finds one. Does not test the GPU."""
    if not _has_driver():  # checked first, because the import of CuPy takes almost a second
        return "there is no NVIDIA driver (no /dev/nvidiactl, no libcuda.so.1)"
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        reason = first_line(error.__cause__ or error)  # CuPy's own message is a page of advice
        return f"there is an NVIDIA driver, but CuPy cannot be imported ({reason})"
    return _problem(cupy)


def _problem(cupy: Any) -> str:
    """Return the problem of the driver, or that it has no device; an empty string if there is no problem."""
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
