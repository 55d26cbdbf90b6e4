"""The device of a rank, where its arrays are and its kernels run: the host, a GPU, or an emulated GPU."""

from __future__ import annotations

from anyrank.device.host import Device, Module, ShapeOnlyDevice
from anyrank.device.select import open_gpu

__all__ = ["GPU_BODIES", "Device", "Module", "ShapeOnlyDevice", "open_device"]

#: The bodies whose arrays are on a GPU.
GPU_BODIES = ("cupy", "shim")


def open_device(body: str, node_rank: int = 0) -> Device:
    """Open the device of a kernel body. Not collective.

    Parameters
    ----------
    body : str
        `cupy` opens a GPU of this node, `shim` an emulated one, any other body the host.
    node_rank : int
        The rank within the node, which selects the GPU in turn.

    Returns
    -------
    Device
        The open device.

    Raises
    ------
    UsageError
        If there is no such device.

    """
    if body not in GPU_BODIES:
        return Device()
    return open_gpu(body, node_rank)
