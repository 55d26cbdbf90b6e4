"""Callbacks: code called before and after steps, and when a checkpoint is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from anyrank.numerics.digest import hexadecimal
from anyrank.state import State
from anyrank.storage.write import Saved


class Callback:
    """Code that goes along with the steps of a run without taking part in them; a subclass overrides what it needs.

    A program gives its own by the method `callbacks`. The run calls each method on all ranks, at the same step, for all
    callbacks in turn, so a method may make collective calls if every rank makes them. A callback reads the state and
    does not write to it: what it keeps is in no checkpoint.

    Examples
    --------
    >>> class Halfway(Callback):
    ...     def after_step(self, state):
    ...         if state.step == 50 and state.world.rank == 0:
    ...             print("half of the steps are done")
    """

    def on_start(self, state: State) -> None:
        """Called once before the first step of this execution; the state is set up or restored."""

    def before_step(self, state: State) -> None:
        """Called before a step; `state.step` counts the steps done before it."""

    def after_step(self, state: State) -> None:
        """Called after a step; `state.step` counts it."""

    def on_checkpoint(self, saved: Saved) -> None:
        """Called when a checkpoint is on the disk, or could not be written: `saved.error` then says why."""

    def on_end(self, state: State) -> None:
        """Called once after the last step of this execution, when its checkpoint is on the disk."""

    def close(self) -> None:
        """Release what the callback holds. Called on each rank by itself, also after an error: not collective."""


class Heartbeat(Callback):
    """Tell the watchdog that this rank has got on.

    Parameters
    ----------
    beat : callable
        Takes the number of steps done.
    """

    def __init__(self, beat: Callable[[int], None]):
        self._beat = beat

    def after_step(self, state: State) -> None:
        """A step is done."""
        self._beat(state.step)

    def on_checkpoint(self, saved: Saved) -> None:
        """Waiting for a checkpoint is over."""
        self._beat(saved.step)


class Digests(Callback):
    """Write the digest of every member of the state at every step, one JSON line each; rank 0 alone writes.

    A step that a resumed run repeats has another line in the file.

    Parameters
    ----------
    path : Path or None
        The file to append to; None on all ranks but 0.
    """

    def __init__(self, path: Path | None):
        self._file = path.open("a", buffering=1, encoding="utf-8") if path is not None else None

    def on_start(self, state: State) -> None:
        """Write the line of the first state. Collective."""
        self.after_step(state)

    def after_step(self, state: State) -> None:
        """Write one line: `step`, and `digests` in hexadecimal by the member's name. Collective."""
        digests = state.digests()
        if self._file is not None:
            line = {"step": state.step, "digests": {name: hexadecimal(value) for name, value in digests.items()}}
            with suppress(OSError):  # a full disk ends the run at its checkpoint, not over this
                self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
