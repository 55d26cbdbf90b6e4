"""Asynchronous copies from the GPU to the host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from anyrank.device.gpu import Gpu, PinnedBuffers


class DeviceToHostCopy:
    """A copy stream and two pinned buffers in turn: one piece is copied while the caller uses the previous one."""

    def __init__(self, gpu: Gpu):
        self.gpu, self.stream, self._buffers = gpu, gpu.stream(), PinnedBuffers(gpu)

    def enter(self, event: Any) -> None:
        """Make the copy stream current in the calling thread, and wait for `event` of another stream."""
        self.gpu.enter()
        self.stream.use()
        self.stream.wait_event(event)

    def copy(self, pieces: Iterable[Any]) -> Iterator[np.ndarray]:
        """Copy contiguous arrays of the GPU to the host; each result is valid until the next one is requested.

        The calling thread must have called `enter`.
        """
        previous = None
        for piece in pieces:
            values = self._buffers.next(piece.shape, piece.dtype)
            piece.get(out=values, blocking=False)
            current = values, self.stream.record()
            if previous is not None:
                yield _wait(*previous)
            previous = current
        if previous is not None:
            yield _wait(*previous)


def _wait(values: np.ndarray, event: Any) -> np.ndarray:
    event.synchronize()
    return values
