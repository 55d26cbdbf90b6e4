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
    if body == "cupy" and (missing := gpu_missing()):
        raise UsageError(f"--body cupy: {missing}. Use --body auto, or run where a GPU is.")
    cupy = importlib.import_module("cupy" if body == "cupy" else "anyrank.device.fake")
    if refusal := _refusal(cupy):
        raise UsageError(f"--body {body}: {refusal}")
    count, failed = cupy.cuda.runtime.getDeviceCount(), []
    for index in ((node_rank + k) % count for k in range(count)):
        try:
            gpu = Gpu(cupy, "cuda" if body == "cupy" else body, index)
            _try(gpu)
        except (RuntimeError, OSError) as error:  # CuPy's errors are RuntimeErrors
            failed.append(f"GPU {index} cannot be used ({str(error).splitlines()[0]})")
            continue
        gpu.refused = tuple(failed)
        return gpu
    raise UsageError(
        f"--body {body}: {count} GPU(s) found: {'; '.join(failed) or 'none'}. Look at them with nvidia-smi, or "
        "use --body auto, which runs on the CPU without."
    )


def _try(gpu: Gpu) -> None:
    found = gpu.full((64,), 0, np.uint32)
    gpu.cupy.RawModule(code=_TRIAL, options=OPTIONS, backend="nvrtc").get_function("trial")((1,), (64,), (found,))
    if not np.array_equal(gpu.to_host(found), np.arange(1, 3 * 64, 3)):
        raise RuntimeError("it computes nonsense")


def gpu_missing() -> str:
    """Why no GPU can be used here, or an empty string where CuPy finds one. Tries none."""
    if not _has_driver():  # asked first, because importing CuPy takes a good part of a second
        return "there is no NVIDIA driver (no /dev/nvidiactl, no libcuda.so.1)"
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        return f"there is an NVIDIA driver, but CuPy cannot be imported ({error})"
    return _refusal(cupy)


def _refusal(cupy: Any) -> str:
    """What is wrong with the driver, or that it shows no device; an empty string where nothing is."""
    runtime = cupy.cuda.runtime
    driver, needed = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    if driver // 1000 < needed // 1000:
        return (
            f"the NVIDIA driver is too old: it runs CUDA up to {_version(driver)}, and CuPy {cupy.__version__} is made "
            f"for {_version(needed)}. Update the driver, or install the CuPy for CUDA {driver // 1000}.x"
        )
    if not cupy.is_available():
        return "there is an NVIDIA driver, but it shows no GPU (CUDA_VISIBLE_DEVICES, or the job's request?)"
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
