"""One execution of a Program on all ranks, from the run folder and parameters to an exit code."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from anyrank.errors import FINISHED, STOPPED, UsageError
from anyrank.observe.events import Events
from anyrank.output.frames_file import Existing, Plan
from anyrank.program import Program
from anyrank.provenance import provenance
from anyrank.runtime import report
from anyrank.runtime.branch import Branch
from anyrank.runtime.callback import Callback, Digests, Heartbeat
from anyrank.runtime.children import end_forked_child
from anyrank.runtime.failure import gpu_failure
from anyrank.runtime.folder import RunFolder
from anyrank.runtime.frames import FRAME_OPTIONS, Frames, existing_frames, plan_frames
from anyrank.runtime.inputs import check_inputs, record_inputs
from anyrank.runtime.journal import Journal
from anyrank.runtime.loop import CheckpointClock, Loop
from anyrank.runtime.options import Options
from anyrank.runtime.outputs import SeriesWriter, check_interval, observes
from anyrank.runtime.picture import draw_on_all_ranks
from anyrank.runtime.prepare import Prepared
from anyrank.runtime.read_only import explain_read_only
from anyrank.runtime.stops import Stops
from anyrank.runtime.watchdog import Watchdog
from anyrank.state import State
from anyrank.storage.checkpoints import Checkpoints
from anyrank.storage.read import Restored
from anyrank.world import World

#: Callbacks of every run of this process, besides those of the program and of the options.
EXTRA_CALLBACKS: list[Callback] = []
T = TypeVar("T")


class Session:
    """One execution: opens the folder, sets the state up or restores it, loops, and reports. Collective."""

    def __init__(
        self,
        program: Program,
        source: str,
        world: World,
        out: Path,
        options: Options,
        command: str,
        extend: bool = False,
    ):
        self.started = time.monotonic()
        self.program, self.source, self.world = program, source, world
        self.folder, self.options, self.command, self.extend = RunFolder(out), options, command, extend
        self.root = world.rank == 0
        #: Whether the folder belongs to this run and can be written, so that events and logs go there.
        self.begun = False
        self._state: State | None = None
        self._callbacks: list[Callback] = []
        self._observe_every: int | None = None
        self._frames: Plan | None = None
        self._existing_frames: Existing | None = None

    def execute(self) -> int:
        """Execute the run and return the exit code: 0 finished, 75 stopped with a valid checkpoint.

        Raises AnyrankError on all ranks together for errors that a user can fix.
        """
        # The watchdog is never closed, because reports of errors and MPI_Finalize may hang, too.
        self.watchdog = Watchdog(self.options.hang_seconds)
        process = os.getpid()
        try:
            self.world.on_root(lambda: check_inputs(self.program, self.folder))  # before the program reads the files
            prepared = Prepared(self.program, self.source, self.world, self.options, self.folder.path)
            self._state = prepared.state
            self.branch = Branch(self.program, self.options, self.folder, prepared.state)
            self.options = self._with_recorded_frames()
            with self.world.raise_on_all_ranks():
                self._frames = plan_frames(self.program, prepared.state, self.options, self.branch.first_step)
            if self._finished_already():
                return FINISHED
            # From here to the end a signal requests a stop and does not kill the process.
            stops = Stops(
                self.folder.stop, self.options.walltime_seconds, self.started, self.root, self.options.stop_at
            )
            try:
                return self._execute(prepared, stops)
            except BaseException as error:
                end_forked_child(process, error)
                raise
            finally:
                stops.close()
                self.folder.unlock()
        except BaseException as error:
            end_forked_child(process, error)
            if self.begun:
                self.journal.log_calls(self.world)
            if failure := gpu_failure(self.world, error, self.folder.path if self.begun else None):
                raise failure from error
            raise
        finally:
            self.folder.unlock()
            for callback in self._callbacks:
                callback.close()

    def note_failure(self, ranks: str, error: str) -> None:
        """Write the error that ended the run to the events; the supervisor reads it. One rank calls it."""
        step = self._state.step if self._state is not None else 0
        with suppress(OSError):  # the error itself is also printed
            events = Events(self.folder.events)
            events.say("failed", step=step, ranks=ranks, error=error)
            events.close()

    def _with_recorded_frames(self) -> Options:
        """Return the options, those of frames that are not given as the run in the folder has them. Collective."""
        description = self.world.on_root(self.folder.describe)
        same = description is not None and description.program == self.program.name
        recorded = description.options if description is not None and same else {}
        missing = recorded.keys() & set(FRAME_OPTIONS) - self.options.given().keys()
        return self.options.model_copy(update={name: recorded[name] for name in missing})

    def _finished_already(self) -> bool:
        """Report a finished run and return True; otherwise make and lock the folder. Collective."""
        folder, program = self.folder, self.program
        parameters, extendable = program.parameters, program.extendable_parameters()

        def check() -> tuple[bool, bool]:
            begun = folder.check(program.name, parameters, extendable, self.extend)
            done = begun and not folder.extends(parameters) and report.show_finished(program.name, folder, self.options)
            return begun, done

        def prepare() -> tuple[bool, int | None, Existing | None]:
            begun, done = check()
            if done:
                return True, None, None
            if begun:
                self._refuse_chaos()
            if folder.stop.is_dir():
                raise UsageError(
                    f"{folder.stop} is a folder, but a file of that name stops the run. Remove the folder."
                )
            folder.lock()
            if check()[1]:  # again under the lock
                return True, None, None
            interval = self._interval()
            existing = existing_frames(folder.frames, self._frames, self.options)
            folder.keep_results(parameters)
            folder.create(program.name, self.source, parameters, self.options.kept(), self.branch.lineage)
            folder.update(parameters, interval)
            record_inputs(program, folder)
            return False, interval, existing

        done, self._observe_every, self._existing_frames = self.world.on_root(
            lambda: self._translate_os_errors(prepare)
        )
        return done

    def _interval(self) -> int | None:
        """Return the interval of the series: that of the options, or else that of the run so far."""
        description = self.folder.describe()
        if description is None:
            return self.options.observe_every
        before = type(self.program)(**description.parameters)  # the run so far may be shorter
        recorded = description.options.get("observe_every")
        return check_interval(before, self.folder, self.options.observe_every, recorded)

    def _refuse_chaos(self) -> None:
        """Refuse chaos in the folder of an existing run, because the option may be there by mistake."""
        if self.options.chaos and not self.options.i_mean_it:
            raise UsageError(
                f"--chaos {self.options.chaos!r} would harm the run that --out {self.folder.path} holds. "
                "Use another --out, or add --i-mean-it."
            )

    def _translate_os_errors(self, action: Callable[[], T]) -> T:
        """Call `action` and return its value; UsageError if the file system refuses it."""
        try:
            return action()
        except OSError as error:
            raise UsageError(
                f"--out {self.folder.path} cannot be written ({error.strerror}). Fix that, or use another --out."
            ) from None

    def _execute(self, prepared: Prepared, stops: Stops) -> int:
        world, program, options, state = self.world, self.program, self.options, prepared.state
        with world.raise_on_all_ranks():
            self.journal = self._translate_os_errors(lambda: Journal(program, world, self.folder, not options.quiet))
        self.begun = True
        self.watchdog.report_to(world, self.folder.path)
        self._log_start(prepared)
        with world.raise_on_all_ranks():
            checkpoints = Checkpoints(
                self.folder.checkpoints,
                state,
                program.name,
                program.parameters,
                extendable=program.extendable_parameters(),
                io=options.checkpoint_io,
                keep=options.keep,
                command=self.command,
                lineage=self.branch.lineage,
            )
        checkpoints.try_header()
        faults = self._faults()
        with world.raise_on_all_ranks():
            self._callbacks += self._translate_os_errors(lambda: [*self._all_callbacks(checkpoints, faults)])
        restored, began = self._setup_or_restore(state, checkpoints)
        self.watchdog.beat(state.step)
        if world.recorder is not None:
            world.recorder.step = state.step
        self.journal.start_progress(state)
        self.journal.warn(prepared.warnings)
        if restored is not None:
            self.journal.restored(restored)
        self.journal.began(began)
        loop = Loop(program, state, checkpoints, stops, CheckpointClock.of(options, state), self._callbacks)
        first = state.step
        reason = loop.run()
        return self._end(prepared, loop, report.ExecutedSteps(first, restored.step if restored else None, reason))

    def _log_start(self, prepared: Prepared) -> None:
        metadata, log, events = provenance(self.world, self.command), self.journal.log, self.journal.events
        self.journal.log_metadata(metadata)
        for warning in prepared.warnings:
            log.warning("%s", warning)
        log.info("rank %d of %d: %s, %s", self.world.rank, self.world.size, prepared.placement, prepared.device)
        if prepared.transfer_reason:
            log.info("halos of GPUs use %s transfer: %s", self.world.transfer, prepared.transfer_reason)
            events.say("transfer", way=self.world.transfer, why=prepared.transfer_reason)
        if prepared.oversubscribed:
            log.warning("%s", prepared.oversubscribed)
        events.say("start", ranks=self.world.size, command=metadata["command"], warnings=prepared.warnings)

    def _faults(self) -> list[Any]:
        """Return the faults to inject. Collective."""
        if not self.options.chaos:
            return []
        from anyrank.runtime.chaos import agree_on_faults

        return agree_on_faults(self.world, self.options.chaos, self.folder.path)

    def _all_callbacks(self, checkpoints: Checkpoints, faults: list[Any]) -> Iterator[Callback]:
        """Yield the callbacks of the run, of its options and of the program, in the order in which they are called."""
        yield Heartbeat(self.watchdog.beat)
        if self.options.digests:
            yield Digests(self.folder.digests if self.root else None)
        if self.options.chaos:
            from anyrank.runtime.chaos import Chaos

            yield Chaos(faults, self.world, self.folder.path, checkpoints)
        if observes(self.program):
            may_fail = self.options.on_full_disk == "warn"
            first = self.branch.first_step
            yield SeriesWriter(self.program, self.folder, self._observe_every, first, may_fail, self.journal)
        if self._frames is not None and self._state is not None:
            what = self._frames, self._existing_frames
            yield Frames(self.program, *what, self.folder, self.options, self.journal, self._state)
        yield from self._callbacks_of_program()
        yield from EXTRA_CALLBACKS
        yield self.journal

    def _callbacks_of_program(self) -> Sequence[Callback]:
        callbacks = self.program.callbacks()
        if not isinstance(callbacks, Sequence) or not all(isinstance(callback, Callback) for callback in callbacks):
            raise UsageError(
                f"{self.program.name}: callbacks() returned {callbacks!r}, but must return a list of anyrank.Callback "
                "objects. Return [] for none."
            )
        return callbacks

    def _setup_or_restore(self, state: State, checkpoints: Checkpoints) -> tuple[Restored | None, list[str]]:
        """Return the checkpoint with which the run continues, and messages about the begin of a branch. Collective."""
        for name in checkpoints.sweep():
            self.journal.events.say("swept", file=name)
        restored, began = checkpoints.restore(), list[str]()
        with explain_read_only():
            self.program.constants(state)
            state.finish_constants()
            if restored is None:
                began = self.branch.begin()
        return restored, began

    def _end(self, prepared: Prepared, loop: Loop, span: report.ExecutedSteps) -> int:
        state = prepared.state
        result = report.as_mapping(self.program.result(state)) if span.finished else {}
        picture = self._picture(state) if span.finished and self.options.picture else None
        summary = report.summarize(self.program, prepared, loop, span, self.command)
        if self.root:
            report.write(self.folder, summary, result)
            how = report.ending(summary).split()[0]
            self.journal.events.say(how, step=summary["steps"], digest=summary["digest"])
            report.show(self.folder.path, summary, result, picture, self.options)
        self.journal.log_bodies()
        self.world.barrier()
        return FINISHED if span.finished else STOPPED

    def _picture(self, state: State) -> Path | None:
        """Return the file of the program's picture; a failure to draw it does not fail the run."""
        path, problem = draw_on_all_ranks(self.world, lambda: self.program.picture(state, self.folder.path))
        if problem:
            self.journal.line(f"no picture: {problem}")
            self.journal.log.warning("no picture: %s", problem)
        return path
