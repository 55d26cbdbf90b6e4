"""Values of a GPU on their way to the host, beside the computing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from anyrank.device.gpu import Gpu


class Crossing:
    """A stream of its own, and two pinned buffers in turn: one piece comes while the one before is used.

    The buffers are as large as the largest piece so far, and stay.
    """

    def __init__(self, gpu: Gpu):
        self.gpu, self.stream = gpu, gpu.stream()
        self._buffers = [np.empty(0, np.uint8)] * 2

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
        for turn, piece in enumerate(pieces):
            values = self._buffer(turn % 2, piece.nbytes).view(piece.dtype).reshape(piece.shape)
            piece.get(out=values, blocking=False)
            coming = values, self.stream.record()
            if before is not None:
                yield _arrived(*before)
            before = coming
        if before is not None:
            yield _arrived(*before)

    def _buffer(self, turn: int, size: int) -> np.ndarray:
        if self._buffers[turn].nbytes < size:
            self._buffers[turn] = self.gpu.pinned(size)
        return self._buffers[turn][:size]


def _arrived(values: np.ndarray, event: Any) -> np.ndarray:
    event.synchronize()
    return values
