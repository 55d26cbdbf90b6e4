"""The journal of a run: the output on the terminal, the events, and the log of each rank."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from anyrank.kernel import BODIES
from anyrank.observe.events import Events
from anyrank.observe.log import open_log
from anyrank.observe.progress import Progress
from anyrank.output.row import Row, text_of
from anyrank.program import Program
from anyrank.runtime.callback import Callback
from anyrank.runtime.folder import RunFolder
from anyrank.state import State
from anyrank.storage.read import Restored
from anyrank.storage.write import Saved
from anyrank.world import World


class Journal(Callback):
    """Progress, events and log of one rank; only rank 0 shows progress and writes events.

    Raises OSError if the run folder cannot be written.
    """

    def __init__(self, program: Program, world: World, folder: RunFolder, show: bool):
        self._program, self._show, self._folder = program, show and world.rank == 0, folder
        self.log = open_log(folder.log, world.rank)
        self.events = Events(folder.events if world.rank == 0 else None)
        self.progress: Progress | None = None

    def start_progress(self, state: State) -> None:
        """Show progress from this state on."""
        done, total, unit = self._program.progress(state)
        self.progress = Progress(self._program.name, total, done, self._program.work(), self._show, unit)
        self.line(
            f"run folder {self._folder.path}: stop with Ctrl-C, continue with: anyrank resume {self._folder.path}"
        )

    def line(self, text: str) -> None:
        """Show a line without disturbing the progress display."""
        if self.progress is not None:
            self.progress.line(text)

    def warn(self, warnings: Sequence[str]) -> None:
        """Show warnings that are already in the log."""
        for warning in warnings:
            self.line(f"warning: {warning}")

    def restored(self, restored: Restored) -> None:
        """Report from which checkpoint the run continues, and which newer ones were refused."""
        for message in restored.refused:
            self.line(f"checkpoint refused: {message}")
            self.log.warning("checkpoint refused: %s", message)
            self.events.say("checkpoint-refused", reason=message)
        for change in restored.changes:
            effect = "the results may differ from those of a run without a stop"
            warning = f"{restored.path.name} was written with {change}: {effect}"
            self.warn([warning])
            self.log.warning("%s", warning)
        self.line(f"resumed at step {restored.step} from {restored.path.name}")
        self.events.say("resumed", step=restored.step, file=restored.path.name)

    def show_row(self, row: Row) -> None:
        """Show a row of the series beside the progress."""
        if self.progress is not None:
            self.progress.note = ", ".join(
                f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {text_of(value)}"
                for name, value in row.values.items()
            )

    def began(self, lines: Sequence[str]) -> None:
        """Report how a branch began."""
        for line in lines:
            self.line(line)
            self.log.info("%s", line)
        if lines:
            self.events.say("branched", lines=[*lines])

    def after_step(self, state: State) -> None:
        """Update the progress."""
        if self.progress is not None:
            self.progress.update(self._program.progress(state)[0], time.monotonic())

    def on_checkpoint(self, saved: Saved) -> None:
        """Report a checkpoint that is on disk, or that could not be written."""
        if saved.error:
            self.line(f"checkpoint of step {saved.step} failed: {saved.error}")
            self.log.error("checkpoint of step %d failed: %s", saved.step, saved.error)
            self.events.say("checkpoint-failed", step=saved.step, error=saved.error)
            return
        times = saved.step, saved.seconds, saved.blocked
        self.log.info("checkpoint of step %d: %.3f s, %.3f s of them blocked the steps", *times)
        self.events.say(
            "checkpoint",
            step=saved.step,
            file=saved.path.name,
            bytes=saved.bytes,
            seconds=round(saved.seconds, 6),
            blocked=round(saved.blocked, 6),
            hidden=round(saved.hidden, 4),
            digest=f"{saved.digest:016x}",
        )

    def on_end(self, state: State) -> None:
        """End the progress display."""
        if self.progress is not None:
            self.progress.close(self._program.progress(state)[0])

    def log_bodies(self) -> None:
        """Log the body of every kernel that was called."""
        for name, body in BODIES.chosen.items():
            self.log.info("kernel %s: body %s (%s)", name, body.name, body.reason)

    def log_calls(self, world: World) -> None:
        """Log the last collective calls of this rank, with --check."""
        if world.recorder is not None:
            self.log.info("the last calls:\n%s", "\n".join(world.recorder.recent()))

    def log_metadata(self, metadata: dict[str, object]) -> None:
        """Log the provenance of the run: versions, hosts, command."""
        self.log.info("start: %s", json.dumps(metadata))

    def close(self) -> None:
        """Close the events."""
        self.events.close()
