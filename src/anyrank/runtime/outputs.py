"""Outputs of a run beside its checkpoints: the callback that writes the time series."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping

import numpy as np

from anyrank.errors import AnyrankError, UsageError, of_all_ranks
from anyrank.output.row import Row, text_of
from anyrank.output.schedule import Schedule
from anyrank.output.series import Recovered, SeriesFile, read_columns, write_hdf5
from anyrank.program import Program
from anyrank.runtime.callback import Callback
from anyrank.runtime.children import end_forked_child
from anyrank.runtime.folder import RunFolder
from anyrank.runtime.journal import Journal
from anyrank.runtime.options import Options
from anyrank.runtime.read_only import explain_read_only
from anyrank.runtime.startup import LISTED, differences
from anyrank.state import State
from anyrank.storage.checkpoint_folder import checkpoint_files, step_of
from anyrank.world import World


def observes(program: Program) -> bool:
    """Return whether the program defines `observe`."""
    return type(program).observe is not Program.observe


def check_outputs(program: Program, options: Options) -> None:
    """Raise UsageError if an option of outputs has no meaning for this program."""
    if options.observe_every is not None and not observes(program):
        raise UsageError(
            f"--observe-every {options.observe_every}: {program.name} has no method observe, whose values would be "
            "written. Omit the option, or define observe."
        )


def total_of(program: Program) -> int | None:
    """Return the number of steps of a run; None if only the program's own `done` knows it."""
    known = type(program).done is Program.done and isinstance(program.steps, int)
    return int(program.steps) if known else None


def schedule_of(program: Program, given: int | None, first: int = 0) -> Schedule:
    """Return when outputs of the program are due: `given` is the interval of the user, `first` the run's first step."""
    return Schedule(given, total_of(program), first)


def check_interval(program: Program, folder: RunFolder, given: int | None, recorded: int | None) -> int | None:
    """Return the interval of the series of a run that continues; UsageError if the rows so far have another one.

    `program` has the parameters of the run so far, `recorded` is its interval, and `given` that of this execution; None
    is the default interval.
    """
    if given is None or given == recorded or not observes(program):
        return given or recorded
    newest = max(map(step_of, checkpoint_files(folder.checkpoints)), default=0)
    before = schedule_of(program, recorded).interval(newest)
    if newest and given % before:
        raise UsageError(
            f"--observe-every {given} is no multiple of {before}, and {folder.series} has only every {before}th step. "
            f"Use a multiple of {before}, or another --out."
        )
    return given


class SeriesWriter(Callback):
    """Calls `observe` when a row is due, and writes the rows; only rank 0 writes.

    Parameters
    ----------
    program : Program
        The program, which defines `observe`.
    folder : RunFolder
        The run folder.
    interval : int or None
        The interval in steps; None is the default interval.
    first : int
        The step at which the run began.
    may_fail : bool
        Whether the run continues if a row cannot be written.
    journal : Journal
        Shows the newest row, and warnings.
    """

    def __init__(
        self,
        program: Program,
        folder: RunFolder,
        interval: int | None,
        first: int,
        may_fail: bool,
        journal: Journal,
    ):
        self._program, self._folder, self._interval, self._first = program, folder, interval, first
        self._may_fail, self._journal = may_fail, journal
        self._file = SeriesFile(folder.series)
        self._process = os.getpid()
        #: The step and the types of the last row; whether rows are not on the disk yet; whether the run is complete.
        self._last, self._pending, self._done = -1, False, False
        self._kinds: dict[str, str] | None = None
        #: Why rank 0 could not write. If the run goes on without the series, all ranks stop calling `observe`.
        self._error = ""
        self._ended = False

    def on_start(self, state: State) -> None:
        """Continue the series from the step of the state, and write the row of this step if it is due. Collective."""
        self._schedule = schedule_of(self._program, self._interval, self._first)
        recovered = state.world.on_root(lambda: self._recover(state.step))
        self._last, self._kinds = recovered.last, recovered.kinds
        if recovered.missing:
            first, last = recovered.missing[0], recovered.missing[-1]
            count = len(recovered.missing)
            self._warn(
                f"{self._folder.series} lacks {count} row{'s' * (count > 1)} from step {first} to {last}, which an "
                "earlier execution has written. They are lost; the series continues without them."
            )
        self._observe_if_due(state, UsageError)

    def _recover(self, step: int) -> Recovered:
        """Begin the series at the run's first step, otherwise cut it back to the rows before; only rank 0 calls it."""
        path = self._folder.series
        try:
            if step == self._first:
                self._file.begin()
                self._folder.series_hdf5.unlink(missing_ok=True)
                return Recovered()
            recovered = self._file.recover(step, self._schedule)
            write_hdf5(self._folder.series_hdf5, read_columns(path), self._program.name)
            return recovered
        except ValueError as error:
            raise UsageError(
                f"{error}. Restore the file, or move it away: the run then continues without the rows up to step "
                f"{step}."
            ) from None
        except OSError as error:
            raise UsageError(f"{_text(error)}. Correct that, or use another --out.") from None

    def after_step(self, state: State) -> None:
        """Write a row, if it is due. Collective."""
        self._observe_if_due(state, AnyrankError)

    def on_done(self, state: State) -> None:
        """Write the row of the last step. Collective."""
        self._done = True
        if self._last != state.step and not self._ended:
            self._observe(state, AnyrankError)

    def before_checkpoint(self, state: State) -> None:
        """Wait until the rows are on the disk. Collective."""
        if self._pending:
            self._pending = False
            if state.world.rank == 0 and not self._error:
                self._try(self._file.sync)
            self._agree_on_error(state.world, not state.world.all(not self._error))

    def on_end(self, state: State) -> None:
        """Write series.h5. Collective."""
        if not self._ended:
            self._agree_on_error(state.world, state.world.bcast(state.world.rank == 0 and not self._try(self._finish)))

    def _finish(self) -> None:
        if self._done:
            self._file.finish(self._last, self._schedule)
        write_hdf5(self._folder.series_hdf5, read_columns(self._folder.series), self._program.name)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _observe_if_due(self, state: State, kind: type[AnyrankError]) -> None:
        if self._schedule.due(state.step) and self._last != state.step and not self._ended:
            with state.world.timers.during("output"):
                self._observe(state, kind)

    def _observe(self, state: State, kind: type[AnyrankError]) -> None:
        """Call `observe`, agree on its row, and write it; `kind` is the error if it is no row. Collective."""
        with explain_read_only():
            observed = self._program.observe(state)
        end_forked_child(self._process, None, "observe")
        row, problem = None, ""
        try:
            row = Row.of(state.step, observed)
        except ValueError as error:
            problem = str(error)
        failed = self._agree(state.world, row, problem, state.step)
        problem = problem if row is None else self._difference(row)
        if problem:
            raise of_all_ranks(kind(f"{self._program.name}: step {state.step}: {problem}"))
        self._agree_on_error(state.world, failed)
        if self._ended or row is None:
            return
        self._last, self._kinds, self._pending = row.step, row.kinds, True
        if state.world.rank == 0:
            self._try(lambda: self._file.append(row))
            self._journal.show_row(row)

    def _difference(self, row: Row) -> str:
        """Return how the columns differ from those of the rows so far, as text; empty if they are the same."""
        if self._kinds is None or self._kinds == row.kinds:
            return ""
        if [*self._kinds] != [*row.kinds]:
            names = [", ".join(names) or "no columns" for names in (row.kinds, self._kinds)]
            return (
                f"observe returned the columns {names[0]}, but {self._folder.series} has {names[1]}: every row has the "
                "same columns in the same order. Return all of them at every step."
            )
        name = next(name for name, kind in row.kinds.items() if self._kinds[name] != kind)
        return (
            f"observe returned {name} = {text_of(row.values[name])}, of the type {row.kinds[name]}, but in the rows "
            f"before it is {self._kinds[name]}. Return {self._kinds[name]}(…) at every step."
        )

    def _agree(self, world: World, row: Row | None, problem: str, step: int) -> bool:
        """Return whether rank 0 could not write an earlier row; AnyrankError on all ranks if their rows differ."""
        if world.size == 1:
            return bool(self._error)
        text = problem if row is None else row.header + row.line
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        number = int.from_bytes(digest, "little", signed=True)
        low, high, failed = world.allreduce(np.array([~number, number, bool(self._error)], np.int64), "max").tolist()
        if ~low != high:
            with world.raise_on_all_ranks():
                self._refuse_differences(world.gather(_properties(row, problem)) or [], step)
        return bool(failed)

    def _refuse_differences(self, ranks: list[Mapping[str, str]], step: int) -> None:
        absent = {name: "none" for properties in ranks for name in properties}
        lines = [f"  {line}" for line in differences([{**absent, **properties} for properties in ranks])][:LISTED]
        if lines:
            what = f"{self._program.name}: step {step}: observe returned other values on other ranks:"
            fix = "All ranks must return the same row: reduce by exact.sum, exact.mean, exact.max or world.sum."
            raise AnyrankError("\n".join([what, *lines, fix]))

    def _try(self, write: Callable[[], None]) -> bool:
        """Return whether the call succeeds; keep the message of an OSError for the next agreement. Only on rank 0."""
        try:
            write()
        except (OSError, ValueError) as error:
            self._error = _text(error)
        return not self._error

    def _agree_on_error(self, world: World, failed: bool) -> None:
        """End the series with a warning, or raise AnyrankError on all ranks, if rank 0 could not write. Collective."""
        if not failed:
            return
        error = world.bcast(self._error)
        if not self._may_fail:
            fix = "Make room, and continue with resume; or use --on-full-disk warn."
            raise of_all_ranks(AnyrankError(f"{error}. {fix}"))
        self._ended, self._error = True, ""
        self._warn(f"{error}. The series ends here; the run goes on.")

    def _warn(self, text: str) -> None:
        self._journal.warn([text])
        self._journal.log.warning("%s", text)
        self._journal.events.say("output-warning", text=text)


def _properties(row: Row | None, problem: str) -> Mapping[str, str]:
    """Return what ranks must agree on, as text by name."""
    if problem or row is None:
        return {"problem": problem}
    values = {name: f"{text_of(value)} ({row.kinds[name]})" for name, value in row.values.items()}
    return {"columns": ", ".join(row.values) or "none", **values}


def _text(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'series.csv'} cannot be written ({error.strerror})"
    return str(error)
