"""Companions of a run: what goes along with its steps and checkpoints without taking part in them."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from anyrank.checkpoint import Saved
from anyrank.digest import hexadecimal
from anyrank.state import State


class Companion:
    """Called by the loop on all ranks together; a subclass overrides what it needs."""

    def before(self, state: State) -> None:
        """A step is about to be done; `state.step` counts the steps done before."""

    def after(self, state: State) -> None:
        """A step has been done, and at the start: the state is set up or restored. Collective."""

    def saved(self, saved: Saved) -> None:
        """A checkpoint is on disk."""

    def close(self) -> None:
        """The run is over."""


class Digests(Companion):
    """Writes the digest of every member of the state at every step, a JSON line each; rank 0 alone writes.

    A step that a resumed run does again stands in the file again.
    """

    def __init__(self, path: Path | None):
        self._file = path.open("a", buffering=1, encoding="utf-8") if path is not None else None

    def after(self, state: State) -> None:
        """Write one line: `step`, and `digests` in hexadecimal by the member's name."""
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
