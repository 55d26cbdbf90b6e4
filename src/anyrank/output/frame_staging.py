"""Copies of the values of one frame, which a thread writes while steps continue."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from anyrank import exact
from anyrank.device import Device
from anyrank.device.gpu import Gpu
from anyrank.field import Field
from anyrank.layout import Layout
from anyrank.numerics.strided import extents, row_slices
from anyrank.output.step_sums import StepSums
from anyrank.output.variables import Variable
from anyrank.storage.device_to_host import DeviceToHostCopy
from anyrank.storage.durable import start_writing, write_all
from anyrank.storage.staging import RESERVED_SHARE, Redistribution, writing_layout


class FrameStaging:
    """A copy of this rank's part of a variable, in the type of the file. Construction is not collective.

    A copy of values on a GPU stays there, if there is enough memory, and goes to the host while steps continue.
    """

    def __init__(self, variable: Variable, to_host: DeviceToHostCopy | None, sums: StepSums | None = None):
        self._variable, field = variable, variable.field
        self._sums = sums if variable.over_steps else None
        self._selected = variable.layout()
        self._slices = variable.slices(self._selected)
        dtype = variable.dtype
        if variable.averaged:
            dtype = np.result_type(field.dtype, np.float64) if variable.over_steps else field.dtype
        self._layout = self._selected
        self._redistribute: Redistribution | None = None
        if not variable.averaged:
            self._layout = writing_layout(self._selected, dtype.itemsize)
        self._gpu_block: Any = None
        moves = self._layout is not self._selected
        if to_host is not None and not moves and not variable.averaged and not variable.over_steps:
            self._gpu_block = _allocate(field, self._selected, to_host.gpu)
        self._to_host = to_host
        shape = (0,) if self._gpu_block is not None else self._selected.local_shape
        #: The selected values of this rank on the host, and the values that it writes.
        self._source = np.empty(shape, dtype)
        self._block = self._source
        self._piece: Field | None = None
        if moves or variable.averaged:
            self._piece = Field.from_array(variable.name, self._selected, self._source, field.dims, "", "frames")
            self._source = self._piece.local
        if moves and self._piece is not None:
            self._redistribute = Redistribution(self._piece, self._layout)
            self._block = np.empty(self._layout.local_shape, dtype)

    def copy(self) -> None:
        """Copy the present values of the field. Collective."""
        device = self._variable.field.device
        if self._sums is not None:
            values, device = self._sums.mean(self._variable.name), Device()
        else:
            values = self._variable.field.local[self._slices]
        if self._gpu_block is not None and self._to_host is not None:
            self._gpu_block[...] = values
            self._copied = self._to_host.gpu.compute.record()
            return
        for rows in row_slices(values):
            self._convert(device.to_host(values[rows]), self._source[rows])
        if self._variable.averaged and self._piece is not None:
            self._average(self._piece)
        elif self._redistribute is not None and self._piece is not None:
            self._redistribute(self._piece, self._block)

    def _convert(self, values: np.ndarray, target: np.ndarray) -> None:
        part = values if self._variable.averaged else self._variable.convert(values)
        with np.errstate(over="ignore", invalid="ignore"):  # a value out of range becomes infinite
            np.copyto(target, part, casting="unsafe")

    def _average(self, piece: Field) -> None:
        """Set the values that rank 0 writes, and the other ranks do not. Collective."""
        averaged = self._variable.averaged
        mean = exact.mean(piece) if len(averaged) == len(self._variable.axes) else exact.mean(piece, axis=averaged)
        mine = self._variable.field.world.rank == 0
        with np.errstate(over="ignore", invalid="ignore"):
            values = self._variable.convert(np.asarray(mean)).astype(self._variable.dtype)
        self._block = np.ascontiguousarray(values).reshape(self._variable.shape or (1,))
        if not mine:
            self._block = self._block[:0]

    def write(self, descriptor: int, offset: int) -> None:
        """Write the values into the file, where the frame begins at `offset`. Raises OSError. Not collective."""
        averaged = self._variable.averaged
        shape = (self._variable.shape or (1,)) if averaged else self._layout.shape
        start = (0,) * len(shape) if averaged else self._layout.start
        row = self._variable.dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        for part in self._parts():
            for position, data in extents(part, shape, start):
                write_all(descriptor, data, offset + position)
            start_writing(descriptor, offset + start[0] * row, len(part) * row)
            start = (start[0] + len(part), *start[1:])

    def _parts(self) -> Any:
        """Yield the rows of the values on the host, in pieces."""
        if self._gpu_block is None or self._to_host is None:
            yield from (self._block[rows] for rows in row_slices(self._block))
            return
        self._to_host.enter(self._copied)
        for piece in self._to_host.copy([self._gpu_block[rows] for rows in row_slices(self._gpu_block)]):
            target = np.empty(piece.shape, self._variable.dtype)
            self._convert(piece, target)
            yield target


def _allocate(field: Field, layout: Layout, gpu: Gpu) -> Any:
    """Allocate GPU memory for a copy; None if too little memory would remain for the run."""
    needed = int(np.prod(layout.local_shape, dtype=np.int64)) * field.dtype.itemsize
    free, total = gpu.free_memory()
    if needed + total // RESERVED_SHARE <= free:
        with suppress(MemoryError):  # another rank that shares the GPU may have allocated first
            return gpu.full(layout.local_shape, 0, field.dtype)
    return None
