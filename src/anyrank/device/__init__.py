"""Where a rank's arrays live and its kernels run: the host, a GPU, or an emulated GPU."""

from __future__ import annotations

from anyrank.device.find import open_gpu
from anyrank.device.host import Device, Module, Weightless

__all__ = ["GPU_BODIES", "Device", "Module", "Weightless", "open_device"]

#: Bodies whose arrays are a device's.
GPU_BODIES = ("cupy", "shim")


def open_device(body: str, node_rank: int = 0) -> Device:
    """The device that the body asks for: `cupy` a GPU of this node, in turn by `node_rank`; `shim` the same of
    GPUs that are not there; any other body the host. Raises UsageError where there is none."""
    if body not in GPU_BODIES:
        return Device()
    return open_gpu(body, node_rank)
