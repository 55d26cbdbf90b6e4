"""The checkpoints of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from anyrank.errors import UsageError
from anyrank.provenance import provenance
from anyrank.state import State
from anyrank.storage import durable
from anyrank.storage import keep as folders
from anyrank.storage.format import Identity, check_dims, lay_out
from anyrank.storage.read import Restored, restore
from anyrank.storage.ways import way_called
from anyrank.storage.write import Saved, Writing


class Checkpoints:
    """The checkpoints of one run in one folder: written beside the computing, kept, and restored.

    Make it when the state is declared. `begin` starts one and returns; `proceed`, called by all ranks when
    none is `working`, takes it from phase to phase. `io` is `pwrite`, `mpio` or `gather`; the last `keep`
    stay. Raises UsageError for values that cannot be.
    """

    def __init__(
        self,
        folder: Path,
        state: State,
        program: str,
        parameters: Mapping[str, Any],
        *,
        io: str = "pwrite",
        keep: int = 2,
        command: str = "",
    ):
        if keep < 1:
            raise UsageError(f"--keep {keep} leaves no checkpoint to resume from: keep at least 1.")
        check_dims(state)
        self.folder, self.state, self.keep, self.command = Path(folder), state, keep, command
        self.identity = Identity.of(program, parameters, state.seed)
        #: What writing the checkpoint of a step meets, if not what the file system says; alike on all ranks.
        self.fault: Callable[[int], OSError | None] = lambda step: None
        self._way = way_called(io, state)
        self._refused: dict[Path, str] = {}
        self._writing: Writing | None = None

    @property
    def pending(self) -> bool:
        """Whether a checkpoint is under way; the same on all ranks."""
        return self._writing is not None

    def working(self) -> bool:
        """Whether this rank's part of the present phase still runs. Local, and cheap."""
        return self._writing is not None and self._writing.working()

    def sweep(self) -> list[str]:
        """Remove the temporary files of writers that died; their names on all ranks. Collective."""
        self._check_idle()
        return self.state.world.on_root(partial(folders.sweep, self.folder))

    def try_header(self) -> None:
        """Write a checkpoint's header and ask for the room of its values, before any step; then remove it. Collective.

        Raises UsageError on all ranks where a file cannot hold what is declared, or there is no room for it.
        """
        self._check_idle()
        stored, world = self.state.stored(), self.state.world
        temporary = folders.temporary_of(self.folder, self.state.step)

        def write() -> None:
            try:
                durable.make_folder(self.folder)
                lay_out(temporary, stored, self.state.step, self.identity, False, provenance(world, self.command))
            except (OSError, RuntimeError, ValueError, TypeError) as error:
                told = str(error).splitlines()[0]
                fix = "Mend that, or use another --out."
                raise UsageError(f"a checkpoint of this run cannot be written: {told}. {fix}") from None
            finally:
                temporary.unlink(missing_ok=True)

        world.on_root(write)

    def restore(self) -> Restored | None:
        """Put the newest good checkpoint into the state, None where there is none. Collective.

        Raises UsageError where it is of another run or a newer format, CheckpointError where all are damaged.
        """
        self._check_idle()
        return restore(self.folder, self.state, self.identity, self._refused)

    def begin(self, finished: bool = False) -> None:
        """Start a checkpoint of the state as it is; when this returns, the state may change. Collective.

        `finished` says that the run is over. Raises AnyrankError where a Scalar differs between ranks; what
        the file system refuses is told by `Saved.error` in the end.
        """
        self._check_idle()
        self._way.fault = self.fault(self.state.step)
        self._writing = Writing(
            self.state,
            self._way,
            self.identity,
            folders.path_of(self.folder, self.state.step),
            self._rotate,
            command=self.command,
            finished=finished,
        )

    def proceed(self) -> Saved | None:
        """End the present phase and start the next; what came of the checkpoint when it was the last.

        Collective; waits where a rank is still working. None also where nothing is pending.
        """
        saved = self._writing.proceed() if self._writing is not None else None
        if saved is not None:
            self._writing = None
        return saved

    def finish(self) -> Saved | None:
        """Wait for the pending checkpoint and tell what came of it, None where none is. Collective."""
        saved = None
        while self.pending:
            saved = self.proceed()
        return saved

    def _rotate(self, newest: Path) -> None:
        self._refused.pop(newest, None)
        folders.rotate(self.folder, newest, self.keep, self._refused)

    def _check_idle(self) -> None:
        if self._writing is not None:
            raise RuntimeError("a checkpoint is pending: call finish() first")
