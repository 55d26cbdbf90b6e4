"""The callback that writes frames.nc: when a frame is due, what a resumed run keeps, and what a full disk does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from anyrank.errors import AnyrankError, UsageError, of_all_ranks
from anyrank.output.expressions import OFF
from anyrank.output.frame_writer import FrameWriter
from anyrank.output.frames_file import Existing, Plan, read_existing
from anyrank.output.schedule import default_interval
from anyrank.output.step_sums import StepSums
from anyrank.output.variables import variables_of
from anyrank.program import Program
from anyrank.runtime.callback import Callback
from anyrank.runtime.folder import RunFolder
from anyrank.runtime.journal import Journal
from anyrank.runtime.options import Options
from anyrank.runtime.outputs import total_of
from anyrank.state import State
from anyrank.storage.format import Identity

#: The largest number of intervals of a run if the user gives no interval, and the number of frames for which a file has
#: space at first if the number of steps is not known.
INTERVALS, SPACE = 16, 16
#: The options that say what frames.nc has; a run keeps them.
FRAME_OPTIONS = ("frames", "frames_every", "frames_stride", "frames_type", "frames_compression")
#: The folder of the sums for means over steps, in the run folder.
SUMS = "frames-sums"


def plan_frames(program: Program, state: State, options: Options, first: int = 0) -> Plan | None:
    """Return what frames.nc of a run that began at the step `first` has; None without frames. Not collective.

    Raises UsageError if an option is not valid for this program.
    """
    if options.frames == OFF:
        return None
    variables = variables_of(state, options.frames or None, options.frames_stride, options.frames_type)
    if not variables:
        _refuse_without_fields(options)
        return None
    if options.frames and options.frames_every is None:
        raise UsageError(
            f"--frames {options.frames!r} needs the interval in steps between two frames. Add --frames-every 100."
        )
    identity = Identity.of(program.name, program.parameters, state.seed, program.extendable_parameters())
    return Plan(
        tuple(variables), options.frames_every or default_interval(total_of(program) or 0, INTERVALS), identity, first
    )


def _refuse_without_fields(options: Options) -> None:
    given: dict[str, object] = {"--frames-every": options.frames_every, "--frames-type": options.frames_type}
    given |= {"--frames-compression": options.frames_compression * (options.frames_compression != "none")}
    given |= {"--frames-stride": options.frames_stride if options.frames_stride > 1 else None}
    for flag, value in given.items():
        if value:
            raise UsageError(
                f"{flag} {value}: no field is written. Add --frames with fields, or declare a field with frames=True."
            )


def existing_frames(path: Path, plan: Plan | None, options: Options) -> Existing | None:
    """Return what frames.nc of a run has; None if there is no file, or nothing is planned. Not collective.

    Raises UsageError if it is not of this run, or has other variables or another interval.
    """
    existing = read_existing(path, plan) if plan is not None else None
    if existing is None or plan is None or existing.every == plan.every:
        return existing
    if options.frames_every is not None or plan.every % existing.every:
        raise UsageError(
            f"--frames-every {plan.every}: {path} has every {existing.every}th step, and the interval of a run cannot "
            f"change. Use --frames-every {existing.every}, or another --out."
        )
    return existing


class Frames(Callback):
    """Writes a frame of every variable when one is due: at multiples of the interval, and at the last step of a run.

    Parameters
    ----------
    program : Program
        The program, which may know its number of steps.
    plan : Plan
        What the file shall have.
    existing : Existing or None
        What it has: see `existing_frames`.
    folder : RunFolder
        The run folder.
    options : Options
        The options of the run.
    journal : Journal
        Shows warnings.
    state : State
        The declared State.
    """

    def __init__(
        self,
        program: Program,
        plan: Plan,
        existing: Existing | None,
        folder: RunFolder,
        options: Options,
        journal: Journal,
        state: State,
    ):
        self._plan, self._journal, self._options = plan, journal, options
        self._path, self._total = folder.frames, total_of(program)
        self._sums: StepSums | None = None
        if any(variable.over_steps for variable in plan.variables):
            folder_, what = folder.path / SUMS, f"every {plan.every} steps: {plan.describe()}"
            self._sums = StepSums(folder_, plan.variables, state.world, what, options.keep + 2)
        self._writer = FrameWriter(folder.frames, plan, state, self._sums)
        self._existing = existing
        self._ended = False

    def on_start(self, state: State) -> None:
        """Keep the frames up to the step of the state, and write that of this step if it is due. Collective."""
        existing = self._existing
        written = {*existing.steps} if existing is not None and state.step > self._plan.first else set[int]()
        again = state.step not in written and (
            self._sums is None or state.step == self._plan.first
        )  # this frame can be written now
        needed = [step for step in self._due(state.step + 1) if step != state.step or not again]
        kept = [step for step in needed if step in written]
        missing = [step for step in needed if step not in written]
        if missing:
            shown = f"step {missing[0]}" if len(missing) == 1 else f"{len(missing)} steps from {missing[0]}"
            shown += f" to {missing[-1]}" * (len(missing) > 1)
            self._warn(f"{self._path} lacks the frames of {shown}. They are lost; the file continues without them.")
        self._try(lambda: self._writer.begin(existing, kept, self._capacity(kept, state.step)), UsageError)
        if self._sums is not None:
            self._restore_sums(self._sums, state)
        if again:
            self._write_if_due(state)

    def _restore_sums(self, sums: StepSums, state: State) -> None:
        """Continue the sums over steps since the last frame; at the first step they are those of the first state."""
        last, first = state.step // self._plan.every * self._plan.every, self._plan.first
        count = (
            state.step - last if last >= first else state.step - first + 1
        )  # the sums of a branch have its first step
        if state.step == self._plan.first:
            sums.add()
        elif count and not sums.restore(state.step, count):
            first = state.step - count + 1
            self._warn(
                f"{self._path.parent / SUMS} lacks the sums of the steps from {first} to {state.step}: the next means "
                "over steps are without them."
            )

    def _due(self, stop: int) -> range:
        """Return the steps before `stop` at which a frame is due, besides the last step of a run."""
        every = self._plan.every
        return range(-(-self._plan.first // every) * every, stop, every)

    def _capacity(self, kept: list[int], step: int) -> int:
        """Return the number of frames of the whole run; if it is not known, at least twice those that there are."""
        if self._total is None:
            return max(SPACE, 2 * len(kept))
        ahead = [due for due in self._due(self._total + 1) if due >= step and due not in kept[-1:]]
        last = self._total % self._plan.every != 0
        return len(kept) + len(ahead) + last

    def after_step(self, state: State) -> None:
        """Write a frame, if it is due. Collective."""
        if self._sums is not None and not self._ended:
            self._sums.add()
        self._write_if_due(state)

    def _write_if_due(self, state: State) -> None:
        if state.step % self._plan.every == 0:
            self._write(state)

    def _write(self, state: State) -> None:
        newest = self._writer.pending if self._writer.pending >= 0 else max(self._writer.steps, default=-1)
        if newest != state.step:
            with state.world.timers.during("output"):
                self._try(lambda: self._writer.start(state.step))

    def before_checkpoint(self, state: State) -> None:
        """Wait until the frames are on the disk. Collective."""
        self._try(self._writer.sync)
        if self._sums is not None:
            self._try(partial(self._sums.save, state.step))

    def on_done(self, state: State) -> None:
        """Write the frame of the last step. Collective."""
        between = state.step % self._plan.every != 0
        if self._sums is not None and between:  # a longer run continues them
            self._try(partial(self._sums.save, state.step))
        self._write(state)
        if self._ended:
            with suppress(AnyrankError):  # of all ranks: the file then keeps slots without frames
                self._writer.finish(compressed=False)
        self._try(lambda: self._writer.finish(self._options.frames_compression != "none"))

    def on_end(self, state: State) -> None:
        """Log how many frames there are, and for which share of their work steps continued. Collective."""
        share = self._writer.hidden_share()
        count, names = len(self._writer.steps), self._plan.names()
        self._journal.log.info("frames: %d of %s, %.0f %% hidden", count, names, 100 * share)
        self._journal.events.say("frames", count=count, variables=names, hidden=round(share, 3))

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _try(self, write: Callable[[], None], kind: type[AnyrankError] = AnyrankError) -> None:
        """Call `write`, which raises AnyrankError on all ranks or none; then end the frames, or the run."""
        if self._ended:
            return
        try:
            write()
        except AnyrankError as error:
            text = f"{self._path} cannot be written: {error}"
            if self._options.on_full_disk == "stop":
                fix = "Make room, and continue with resume; or use --on-full-disk warn."
                raise of_all_ranks(kind(f"{text}. {fix}")) from None
            self._ended = True
            self._warn(f"{text}. The frames end here; the run goes on.")

    def _warn(self, text: str) -> None:
        self._journal.warn([text])
        self._journal.log.warning("%s", text)
        self._journal.events.say("output-warning", text=text)
