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
    """Code that a run calls before and after its steps; a subclass overrides the methods that it needs.

    A program returns its own callbacks from the method `callbacks`. The run calls each method on all ranks at the same
    step, one callback after the other. A method may therefore make collective calls, if every rank makes them. A
    callback reads the state and does not write to it: checkpoints do not hold the data of a callback.

    Examples
    --------
    >>> class Halfway(Callback):
    ...     def after_step(self, state):
    ...         if state.step == 50 and state.world.rank == 0:
    ...             print("half of the steps are done")
    """

    def on_start(self, state: State) -> None:
        """Run once before the first step of this execution. Collective.

        Parameters
        ----------
        state : State
            The State, set up or restored.
        """

    def before_step(self, state: State) -> None:
        """Run before a step. Collective.

        Parameters
        ----------
        state : State
            The State; `state.step` is the number of earlier steps.
        """

    def after_step(self, state: State) -> None:
        """Run after a step. Collective.

        Parameters
        ----------
        state : State
            The State; `state.step` includes the step.
        """

    def before_checkpoint(self, state: State) -> None:
        """Run before a checkpoint of the present state begins. Collective.

        What a callback has written until then must be on the disk at the return, because a resumed run does not repeat
        the steps before its checkpoint.

        Parameters
        ----------
        state : State
            The State that the checkpoint will hold.
        """

    def on_checkpoint(self, saved: Saved) -> None:
        """Run when a checkpoint is on disk, or could not be written. Collective.

        Parameters
        ----------
        saved : Saved
            The step and the file of the checkpoint; `saved.error` is the reason if it was not written.
        """

    def on_done(self, state: State) -> None:
        """Run once when the run is complete, before the checkpoint of its last step. Collective.

        A run that stops before its last step does not call it.

        Parameters
        ----------
        state : State
            The final State.
        """

    def on_end(self, state: State) -> None:
        """Run once after the last step of this execution, when its checkpoint is on disk. Collective.

        Parameters
        ----------
        state : State
            The State after the last step.
        """

    def close(self) -> None:
        """Release the resources of the callback. Not collective: each rank calls it, also after an error."""


class Heartbeat(Callback):
    """Tell the watchdog that this rank has made progress.

    Parameters
    ----------
    beat : callable
        Takes the number of steps done.
    """

    def __init__(self, beat: Callable[[int], None]):
        self._beat = beat

    def after_step(self, state: State) -> None:
        """Report the number of steps done."""
        self._beat(state.step)

    def on_checkpoint(self, saved: Saved) -> None:
        """Report progress: the wait for a checkpoint is over."""
        self._beat(saved.step)


class Digests(Callback):
    """Write the digest of every member of the state at every step, one JSON line per step; only rank 0 writes.

    If a resumed run repeats a step, the file has one more line for that step.

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
            with suppress(OSError):  # a full disk ends the run at its checkpoint, not here
                self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
