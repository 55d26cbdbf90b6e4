"""The checkpoints of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from anyrank.errors import UsageError
from anyrank.provenance import provenance
from anyrank.state import State
from anyrank.storage import checkpoint_folder, durable
from anyrank.storage.format import Identity, check_dims, lay_out
from anyrank.storage.read import Restored, restore
from anyrank.storage.write import PendingCheckpoint, Saved
from anyrank.storage.writers import open_writer


class Checkpoints:
    """Write, keep and restore the checkpoints of a run in one folder.

    Create it after the state is declared. `begin` starts a checkpoint and returns. All ranks then call `proceed` when
    no rank is `working`: it ends a phase and starts the next one.

    Parameters
    ----------
    folder : Path
        The folder of the checkpoints, on a file system that all ranks share.
    state : State
        The state that is written and restored.
    program, parameters
        The name and the parameters of the program: they identify the run.
    extendable : tuple of str
        The parameters of which a checkpoint of this run may have a smaller value.
    io : {"pwrite", "mpio", "gather"}
        How the values are written.
    keep : int
        The number of checkpoints to keep, at least 1.
    command : str
        The command line, for the provenance.
    lineage : sequence of dict
        The branches from which the run descends: see `branch.descent`.

    Raises
    ------
    UsageError
        If an argument or a name of the state is not valid.

    """

    def __init__(
        self,
        folder: Path,
        state: State,
        program: str,
        parameters: Mapping[str, Any],
        *,
        extendable: tuple[str, ...] = (),
        io: str = "pwrite",
        keep: int = 2,
        command: str = "",
        lineage: Sequence[Mapping[str, Any]] = (),
    ):
        if keep < 1:
            raise UsageError(f"--keep {keep} leaves no checkpoint to resume from: keep at least 1.")
        check_dims(state)
        self.folder, self.state, self.keep, self.command = Path(folder), state, keep, command
        self.identity = Identity.of(program, parameters, state.seed, extendable, lineage)
        #: The error to inject when the checkpoint of a step is written, or None; the same on all ranks.
        self.fault: Callable[[int], OSError | None] = lambda step: None
        self._writer = open_writer(io, state)
        self._refused: dict[Path, str] = {}
        self._pending: PendingCheckpoint | None = None

    @property
    def pending(self) -> bool:
        """Whether a checkpoint is in progress; the same on all ranks."""
        return self._pending is not None

    @property
    def pending_step(self) -> int:
        """The step of the checkpoint in progress, −1 if there is none; the same on all ranks."""
        return self._pending.step if self._pending is not None else -1

    def working(self) -> bool:
        """Return whether this rank is still working on the present phase. Not collective, and cheap."""
        return self._pending is not None and self._pending.working()

    def sweep(self) -> list[str]:
        """Remove the temporary files of processes that died; return their names on all ranks. Collective."""
        self._check_idle()
        return self.state.world.on_root(partial(checkpoint_folder.sweep, self.folder))

    def try_header(self) -> None:
        """Write the header of a checkpoint, reserve the space of the values, and remove the file. Collective.

        Call it before the first step. Raises UsageError on all ranks if the file format cannot hold the declared
        state, or if there is not enough disk space.
        """
        self._check_idle()
        stored, world = self.state.stored(), self.state.world
        temporary = checkpoint_folder.temporary_of(self.folder, self.state.step)

        def write() -> None:
            try:
                durable.make_folder(self.folder)
                lay_out(temporary, stored, self.state.step, self.identity, False, provenance(world, self.command))
            except (OSError, RuntimeError, ValueError, TypeError) as error:
                reason = str(error).splitlines()[0]
                fix = "Correct that, or use another --out."
                raise UsageError(f"a checkpoint of this run cannot be written: {reason}. {fix}") from None
            finally:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)

        world.on_root(write)

    def restore(self) -> Restored | None:
        """Restore the state from the newest valid checkpoint; return None if there is no checkpoint. Collective.

        Raises UsageError if it belongs to another run or has a newer format, CheckpointError if all are damaged.
        """
        self._check_idle()
        return restore(self.folder, self.state, self.identity, self._refused)

    def begin(self, finished: bool = False) -> None:
        """Start a checkpoint of the present state. The state may change after the return. Collective.

        `finished` marks the checkpoint as the last of a finished run. Raises AnyrankError if a Scalar differs between
        ranks. `Saved.error` reports errors of the file system at the end.
        """
        self._check_idle()
        self._writer.fault = self.fault(self.state.step)
        self._pending = PendingCheckpoint(
            self.state,
            self._writer,
            self.identity,
            checkpoint_folder.path_of(self.folder, self.state.step),
            self._rotate,
            command=self.command,
            finished=finished,
        )

    def proceed(self) -> Saved | None:
        """End the present phase and start the next one; return the result after the last phase, else None.

        Collective; waits for ranks that are still working. Returns None also if no checkpoint is pending.
        """
        saved = self._pending.proceed() if self._pending is not None else None
        if saved is not None:
            self._pending = None
        return saved

    def finish(self) -> Saved | None:
        """Wait for the pending checkpoint and return its result; None if no checkpoint is pending. Collective."""
        saved = None
        while self.pending:
            saved = self.proceed()
        return saved

    def discard(self) -> None:
        """Remove the checkpoint in progress. Collective."""
        if self._pending is not None:
            self._pending.discard()
            self._pending = None

    def newest_before(self, step: int) -> Path | None:
        """Return the newest checkpoint of an earlier step that was not refused, None if there is none. Collective."""
        paths = self.state.world.on_root(partial(checkpoint_folder.checkpoint_files, self.folder))
        return next((p for p in paths if checkpoint_folder.step_of(p) < step and p not in self._refused), None)

    def _rotate(self, newest: Path) -> None:
        self._refused.pop(newest, None)
        checkpoint_folder.rotate(self.folder, newest, self.keep, self._refused)

    def _check_idle(self) -> None:
        if self._pending is not None:
            raise RuntimeError("a checkpoint is pending: call finish() first")
