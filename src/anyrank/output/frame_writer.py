"""Writes frames.nc on all ranks: each rank its part of a frame, in a thread, while steps continue."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

import h5py
import numpy as np

from anyrank.device.gpu import Gpu
from anyrank.numerics.strided import PIECE
from anyrank.output.compress import compress
from anyrank.output.frame_staging import FrameStaging
from anyrank.output.frames_file import Existing, Offsets, Plan, lay_out, read_frame
from anyrank.output.step_sums import StepSums
from anyrank.output.xdmf import write_xdmf
from anyrank.state import State
from anyrank.storage.background import Background
from anyrank.storage.device_to_host import DeviceToHostCopy
from anyrank.storage.durable import Piece, open_collectively, sync, temporary_of, write_all


class FrameWriter:
    """The frames of a run in one file. A frame is complete when all ranks have written it and its step is stored.

    All methods are collective unless they say otherwise, and raise AnyrankError on all ranks if any rank cannot write.

    Parameters
    ----------
    path : Path
        The file, on a file system that all ranks share.
    plan : Plan
        What the file has.
    state : State
        The state whose fields are written.
    sums : StepSums, optional
        The sums of variables that are means over steps; a frame begins new ones.

    Attributes
    ----------
    steps : list of int
        The steps of the complete frames, in the order of the file.
    capacity : int
        The number of frames for which the file has space.
    blocked, waited, busy : float
        Seconds for which frames blocked the steps, those of them that waited for the thread of this rank, and those for
        which the thread has worked.
    """

    def __init__(self, path: Path, plan: Plan, state: State, sums: StepSums | None = None):
        self.path, self._plan, self._world = path, plan, state.world
        self._to_host = DeviceToHostCopy(state.device) if isinstance(state.device, Gpu) else None
        self._sums = sums
        self._staged: list[FrameStaging] | None = None
        self._offsets = Offsets(0, {})
        self._descriptor = -1
        self._background: Background[None] | None = None
        self.steps: list[int] = []
        self.capacity = 0
        #: The step of the frame that is being written, −1 if there is none.
        self.pending = -1
        self._unsynced = False
        self.blocked = self.waited = self.busy = 0.0

    def begin(self, existing: Existing | None, steps: Sequence[int], capacity: int) -> None:
        """Open the file with the frames of these steps, which it has, and space for `capacity` frames.

        The file is laid out anew, unless it has the frames in its first slots and the same space.
        """
        self._world.on_root(lambda: temporary_of(self.path).unlink(missing_ok=True))  # of a killed run
        slots = [existing.steps.index(step) for step in steps] if existing is not None else []
        reuse = existing is not None and existing.offsets is not None and len(existing.steps) == capacity
        self.steps, self.capacity = [*steps], capacity
        if existing is not None and existing.offsets is not None and reuse and slots == [*range(len(slots))]:
            self._offsets = existing.offsets
            self._open()
            self._world.on_root(self._cut_back)
        else:
            self._lay_out(slots, capacity)

    def _open(self) -> None:
        self.close()
        with self._world.raise_on_all_ranks(OSError):
            self._descriptor = os.open(self.path, os.O_WRONLY)

    def _cut_back(self) -> None:
        """Mark all slots after the frames as not complete; only rank 0 calls it."""
        values = np.full(self.capacity, -1, "<i8")
        values[: len(self.steps)] = self.steps
        write_all(self._descriptor, values.view(np.uint8).data, self._offsets.step)
        sync(self._descriptor)
        write_xdmf(self.path, self._plan, self.steps, self.capacity)

    def _lay_out(self, slots: Sequence[int], capacity: int) -> None:
        """Write a new file with the frames in these slots of the present one, and replace it."""
        steps = [*self.steps, *[-1] * (capacity - len(self.steps))]
        with open_collectively(self._world, self.path, partial(lay_out, plan=self._plan, steps=steps)) as (
            offsets,
            put,
        ):
            put(self._kept(slots, offsets))
        self._offsets, self.capacity = offsets, capacity
        self._open()
        self._world.on_root(lambda: write_xdmf(self.path, self._plan, self.steps, self.capacity))

    def _kept(self, slots: Sequence[int], offsets: Offsets) -> Iterator[Piece]:
        """Yield the values of this rank's share of the frames, at their offsets in the new file. Not collective."""
        mine = [number for number in range(len(slots)) if number % self._world.size == self._world.rank]
        if not mine:
            return
        with h5py.File(self.path, "r", locking=False) as file:
            for number in mine:
                for variable in self._plan.variables:
                    first = offsets.variables[variable.name] + number * variable.nbytes
                    for position, values in read_frame(file, variable.name, slots[number], PIECE):
                        yield first + position, values.reshape(-1).view(np.uint8).data

    def start(self, step: int) -> None:
        """Copy the present values, and write them as the frame of a step while steps continue."""
        began = perf_counter()
        self.settle()
        if len(self.steps) == self.capacity:
            self._lay_out(range(len(self.steps)), 2 * self.capacity)
        with self._world.raise_on_all_ranks(MemoryError):
            if self._staged is None:
                self._staged = [FrameStaging(each, self._to_host, self._sums) for each in self._plan.variables]
        for staging in self._staged or ():
            staging.copy()
        if self._sums is not None:
            self._sums.clear()
        self.pending = step
        self._background = Background(partial(self._write, len(self.steps)))
        self.blocked += perf_counter() - began

    def _write(self, slot: int) -> None:
        for variable, staging in zip(self._plan.variables, self._staged or (), strict=True):
            staging.write(self._descriptor, self._offsets.variables[variable.name] + slot * variable.nbytes)
        sync(self._descriptor)

    def settle(self) -> None:
        """Wait for the frame that is being written, and store its step."""
        if self.pending < 0:
            return
        step, self.pending = self.pending, -1
        work = self._background
        if work is not None:
            began = perf_counter()
            work.wait()
            self.waited += perf_counter() - began
            self.busy += work.seconds
        with self._world.raise_on_all_ranks(Exception):
            if work is not None and work.error is not None:
                raise work.error
        self._world.on_root(lambda: self._store(step))
        self.steps.append(step)
        self._unsynced = True

    def _store(self, step: int) -> None:
        data = np.array([step], "<i8").view(np.uint8).data
        write_all(self._descriptor, data, self._offsets.step + 8 * len(self.steps))

    def sync(self) -> None:
        """Wait until all frames are on the disk, and write the file for ParaView."""
        began = perf_counter()
        self.settle()
        if self._unsynced:
            self._world.on_root(self._sync)
            self._unsynced = False
        self.blocked += perf_counter() - began

    def _sync(self) -> None:
        sync(self._descriptor)
        write_xdmf(self.path, self._plan, self.steps, self.capacity)

    def finish(self, compressed: bool) -> None:
        """Remove the space that no frame needs, and compress the frames if asked to."""
        self.sync()
        if compressed:
            compress(self._world, self.path, self._plan, self.steps)
            self.capacity = len(self.steps)
            self._world.on_root(lambda: write_xdmf(self.path, self._plan, self.steps, self.capacity))
        elif len(self.steps) < self.capacity:
            self._lay_out(range(len(self.steps)), len(self.steps))

    def close(self) -> None:
        """Close the file, after the thread has ended. Not collective."""
        if self._background is not None:
            self._background.wait()  # it must not write into another file that gets the same descriptor
            self._background = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def hidden_share(self) -> float:
        """Return the share of the work for frames during which steps continued, from 0 to 1."""
        own = np.array([self.blocked, max(self.busy - self.waited, 0.0)])
        blocked, overlapped = self._world.allreduce(own, "max").tolist()
        return float(overlapped / (blocked + overlapped)) if blocked + overlapped else 1.0
