"""Sums over steps, for variables that are means over the steps since the frame before."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from anyrank.errors import AnyrankError, CheckpointError, UsageError, of_all_ranks
from anyrank.field import Field
from anyrank.numerics.strided import row_slices
from anyrank.output.variables import Variable
from anyrank.state import State
from anyrank.storage.checkpoint_folder import checkpoint_files, step_of
from anyrank.storage.checkpoints import Checkpoints
from anyrank.world import World


class StepSums:
    """The sums since the last frame, added in the order of the steps, and their files for checkpoints between frames.

    The sums are float64, or complex128 for complex fields, in host memory. They are stored like a checkpoint, so that a
    run that is resumed between two frames continues them on any ranks.

    Parameters
    ----------
    folder : Path
        The folder of the files.
    variables : sequence of Variable
        All variables; those that are not means over steps are left out.
    world : World
        The ranks.
    identity : str
        What the sums are of, to recognize files of others.
    keep : int
        The number of files to keep, that of the checkpoints of the run.
    """

    def __init__(self, folder: Path, variables: Sequence[Variable], world: World, identity: str, keep: int):
        self._variables = [variable for variable in variables if variable.over_steps]
        self._world, self._folder = world, folder
        self._state = State(world)
        #: The number of steps in the sums.
        self.count = 0
        for variable in self._variables:
            layout = variable.layout()
            kind = np.complex128 if variable.field.dtype.kind == "c" else np.float64
            dims = tuple(f"{variable.name}_{number}" for number in range(layout.ndim))
            sums = np.zeros(layout.local_shape, kind)
            self._state.add(Field.from_array(variable.name, layout, sums, dims, "", "fields"))
        self._files = Checkpoints(folder, self._state, "frames", {"frames": identity}, keep=keep)

    def add(self) -> None:
        """Add the present values. Not collective."""
        for variable in self._variables:
            sums = self._state.members[variable.name]
            assert isinstance(sums, Field)
            values = variable.field.local[variable.slices(sums.layout)]
            for rows in row_slices(values):
                sums.local[rows] += variable.field.device.to_host(values[rows])
        self.count += 1

    def mean(self, name: str) -> Any:
        """Return the mean over the steps of this rank's part of a variable. Not collective."""
        sums = self._state.members[name]
        assert isinstance(sums, Field)
        return sums.local / self.count

    def clear(self) -> None:
        """Begin new sums. Not collective."""
        self.count = 0
        for field in self._state.fields():
            field.local[...] = 0

    def save(self, step: int) -> None:
        """Store the sums of a step durably, before its checkpoint. Collective; raises AnyrankError on all ranks."""
        if not self.count:
            return
        self._state.step = step
        self._files.begin()
        saved = self._files.finish()
        if saved is not None and saved.error:
            raise of_all_ranks(AnyrankError(saved.error))

    def restore(self, step: int, count: int) -> bool:
        """Restore the sums of `count` steps, and return whether there are any of this step. Collective."""
        self._world.on_root(lambda: self._remove_after(step))
        self._files.sweep()
        restored = None
        with suppress(CheckpointError, UsageError):  # damaged, or of other outputs
            restored = self._files.restore()
        if restored is None or restored.step != step:
            self.clear()
            return False
        self.count = count
        return True

    def _remove_after(self, step: int) -> None:
        """Remove the files of later steps, which the run computes again; only rank 0 calls it."""
        if self._folder.is_dir():
            for path in checkpoint_files(self._folder):
                if step_of(path) > step:
                    path.unlink()
