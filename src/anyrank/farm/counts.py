"""The number of tasks that have ended and failed, in a file of the run folder, for `anyrank status`."""

from __future__ import annotations

import time
from pathlib import Path

from anyrank.runtime.callback import Callback
from anyrank.runtime.folder import RunFolder
from anyrank.state import State
from anyrank.storage.durable import write_atomically

#: Seconds between two writes.
EVERY = 5.0


class WriteCounts(Callback):
    """Writes the counts every few seconds and at the end.

    Parameters
    ----------
    folder : Path
        The run folder.
    """

    def __init__(self, folder: Path):
        self._path, self._written = RunFolder(folder).progress, time.monotonic()

    def after_step(self, state: State) -> None:
        """See `Callback`."""
        if time.monotonic() - self._written > EVERY:
            self.on_end(state)

    def on_end(self, state: State) -> None:
        """See `Callback`."""
        self._written = time.monotonic()
        if state.world.rank == 0:
            write_atomically(self._path, f"{state.ended} of {state.tasks} tasks, {state.failed} failed\n")
