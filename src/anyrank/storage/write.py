"""Write one checkpoint, from the copy of the values to the durable file."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from anyrank.errors import AnyrankError
from anyrank.member import digest_of
from anyrank.numerics.digest import hexadecimal
from anyrank.provenance import provenance
from anyrank.state import Field, State, check_scalars
from anyrank.storage import checkpoint_folder, durable
from anyrank.storage.background import Background
from anyrank.storage.format import Identity, lay_out, store_digests
from anyrank.storage.seal import Extent, seal
from anyrank.storage.writers import DigestsByName, Writer


@dataclass(frozen=True)
class Saved:
    """The result of a checkpoint, the same on all ranks.

    `error` is empty if the checkpoint is valid; otherwise earlier checkpoints are unchanged, and `digests` is empty.
    `seconds` is the time from its start until it was on disk. `blocked` is the time for which computing waited, the
    maximum of all ranks. `hidden` is the share of its work, from 0 to 1, for which computing did not wait.
    """

    step: int
    path: Path
    bytes: int
    seconds: float
    blocked: float
    hidden: float
    digests: DigestsByName
    digest: int
    error: str = ""


class PendingCheckpoint:
    """A checkpoint in progress: `proceed` ends one of its two phases and starts the next one. Collective.

    In the first phase every rank writes its values. In the second phase rank 0 adds the digests, seals and renames
    the file, and deletes old checkpoints with `rotate`. Threads do the work of both phases.
    """

    def __init__(
        self,
        state: State,
        writer: Writer,
        identity: Identity,
        path: Path,
        rotate: Callable[[Path], None],
        *,
        command: str = "",
        finished: bool = False,
    ):
        self._began = self._ended = perf_counter()
        self._world, self._path, self._rotate = state.world, path, rotate
        self.step, self._error, self._bytes, self._sealing = state.step, "", 0, False
        self._waited = self._busy = 0.0
        self._background: Background[Any] | None = None
        self._temporary = checkpoint_folder.temporary_of(path.parent, state.step)
        check_scalars(state)
        self._stored = state.stored()
        self._digests = {scalar.name: scalar.digest() for scalar in state.scalars()}

        def create() -> tuple[Path, dict[str, Extent]]:
            durable.make_folder(path.parent)
            origin = provenance(state.world, command)
            return self._temporary, lay_out(self._temporary, self._stored, self.step, identity, finished, origin)

        try:  # the name has the host and the process of rank 0, so that all ranks use that of rank 0
            self._temporary, self._extents = state.world.on_root(create)
        except AnyrankError as error:
            self._error = _message(path, error)
        else:
            writer.begin(
                self._temporary, self._extents, [item for item in self._stored.values() if isinstance(item, Field)]
            )
            self._background = Background(writer.write)
        self._blocked = perf_counter() - self._began

    def working(self) -> bool:
        """Return whether this rank is still working on the present phase. Not collective."""
        return self._background is not None and not self._background.done

    def proceed(self) -> Saved | None:
        """Wait for the present phase and start the next one; returns the result after the last phase. Collective."""
        entered = perf_counter()
        done = True
        if not self._error:
            try:
                done = self._finish_seal() if self._sealing else self._finish_values()
            except AnyrankError as error:
                self._error = _message(self._path, error)
        if self._error and self._world.rank == 0:
            self._discard()
        self._blocked += perf_counter() - entered
        return self._saved() if done or self._error else None

    def discard(self) -> None:
        """Wait for the threads of all ranks, and remove the file. Collective."""
        with suppress(AnyrankError):  # an error of the file system, on all ranks
            self._wait()
        if self._world.rank == 0:
            self._discard()

    def _wait(self) -> Any:
        """Return the result of this rank's thread, if it has one; raise on all ranks if a thread failed."""
        entered, work = perf_counter(), self._background
        if work is not None:
            work.wait()
            self._busy += work.seconds
            self._waited += perf_counter() - entered
        with self._world.raise_on_all_ranks(Exception):
            if work is not None and work.error is not None:
                raise work.error
        return work.result if work is not None else None

    def _finish_values(self) -> bool:
        """End the first phase and start the second one: returns False, because the checkpoint is not done."""
        own: DigestsByName = self._wait()
        names = list(own)
        parts = np.array([own[name] for name in names], np.uint64)
        totals = self._world.allreduce(parts).tolist()
        digests = {**self._digests, **dict(zip(names, totals, strict=True))}
        self._digests = {name: digests[name] for name in self._stored}
        self._digest = digest_of(self._stored, self._digests)
        self._background = Background(self._seal) if self._world.rank == 0 else None
        self._sealing = True
        return False

    def _seal(self) -> int:
        texts = {name: hexadecimal(value) for name, value in self._digests.items()}
        store_digests(self._temporary, self._stored, texts, hexadecimal(self._digest))
        seal(self._temporary, list(self._extents.values()))
        size = self._temporary.stat().st_size
        durable.publish(self._temporary, self._path)
        self._ended = perf_counter()
        with suppress(OSError):  # the checkpoint is valid even if old ones cannot be deleted
            self._rotate(self._path)
        return size

    def _finish_seal(self) -> bool:
        """End the second phase: returns True. The duration is that on the clock of rank 0, which sealed the file."""
        size = self._wait()
        self._bytes, seconds = self._world.bcast((size, self._ended - self._began))
        self._ended = self._began + seconds
        return True

    def _discard(self) -> None:
        """Free the disk space even if HDF5 still has the file open after an error."""
        with suppress(OSError):
            with self._temporary.open("r+b") as file:
                file.truncate()
            self._temporary.unlink()

    def _saved(self) -> Saved:
        own = np.array([self._blocked, max(self._busy - self._waited, 0.0)])
        blocked, overlapped = self._world.allreduce(own, "max").tolist()
        return Saved(
            self.step,
            self._path,
            self._bytes,
            self._ended - self._began if not self._error else blocked + overlapped,
            blocked,
            overlapped / (blocked + overlapped),
            self._digests if not self._error else {},
            self._digest if not self._error else 0,
            self._error,
        )


def _message(path: Path, error: AnyrankError) -> str:
    """Return the error message, with only the system's message of an HDF5 error."""
    match = re.search(r"error message = '([^']+)'", str(error))
    return f"{path} was not written: {match[1] if match else error}"
