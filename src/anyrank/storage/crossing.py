"""Values of a GPU on their way to the host, beside the computing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from anyrank.device.gpu import Buffers, Gpu


class Crossing:
    """A stream of its own, and two pinned buffers in turn: one piece comes while the one before is used."""

    def __init__(self, gpu: Gpu):
        self.gpu, self.stream, self._buffers = gpu, gpu.stream(), Buffers(gpu)

    def enter(self, event: Any) -> None:
        """Have the calling thread work in the stream, on what is there when the event of another stream has come."""
        self.gpu.enter()
        self.stream.use()
        self.stream.wait_event(event)

    def bring(self, pieces: Iterable[Any]) -> Iterator[np.ndarray]:
        """The values of contiguous arrays of the GPU, on the host; each is good until the next is asked for.

        To be called in a thread that has entered.
        """
        before = None
        for piece in pieces:
            values = self._buffers.next(piece.shape, piece.dtype)
            piece.get(out=values, blocking=False)
            coming = values, self.stream.record()
            if before is not None:
                yield _arrived(*before)
            before = coming
        if before is not None:
            yield _arrived(*before)


def _arrived(values: np.ndarray, event: Any) -> np.ndarray:
    event.synchronize()
    return values
