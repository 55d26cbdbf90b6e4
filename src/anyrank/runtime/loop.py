"""The step loop: steps, agreement and checkpoints, until the state is final or all ranks agree to stop."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from anyrank.errors import AnyrankError, CheckpointError, of_all_ranks
from anyrank.observe.timers import Timers
from anyrank.program import Program
from anyrank.runtime.agreement import Agreed, Agreement
from anyrank.runtime.callback import Callback
from anyrank.runtime.children import end_forked_child
from anyrank.runtime.finite import FiniteCheck
from anyrank.runtime.options import Interval, Options
from anyrank.runtime.read_only import explain_read_only
from anyrank.runtime.stops import NONE, NOT_FINITE, STOP_AT, Stops
from anyrank.state import State
from anyrank.storage.checkpoints import Checkpoints
from anyrank.storage.interval import young_interval
from anyrank.storage.write import Saved

#: The assumed cost of a checkpoint before the first one is measured: bytes per second, and seconds for a small one.
GUESSED_RATE, GUESSED_COST = 1e9, 0.02
#: Bounds of an automatic interval in seconds: they limit the cost of checkpoints and the work lost in a failure.
SHORTEST, LONGEST = 5.0, 3600.0


@dataclass
class CheckpointClock:
    """When checkpoints are due by this rank's clock; only the clock of rank 0 decides.

    `blocked`: seconds for which a checkpoint blocks the steps; `seconds_to_disk`: seconds until it is on disk.
    """

    interval: Interval
    mtbf: float
    blocked: float
    seconds_to_disk: float
    last: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, options: Options, state: State) -> CheckpointClock:
        """Return the clock for these options, with an estimate of the cost of a checkpoint of the state."""
        cost = sum(member.nbytes for member in state.members.values()) / GUESSED_RATE + GUESSED_COST
        return cls(options.interval, options.mtbf_seconds, cost, cost)

    @property
    def seconds(self) -> float:
        """Seconds from one checkpoint to the next; infinite if steps decide, or checkpoints are off."""
        if self.interval.young:
            # Asynchronous writing still loads the file system: keep it idle most of the time.
            shortest = max(SHORTEST, 10 * self.seconds_to_disk)
            return max(min(young_interval(self.blocked, self.mtbf), LONGEST), shortest)
        return self.interval.seconds or math.inf

    def due(self, now: float) -> bool:
        """Return whether a checkpoint is due."""
        return now - self.last >= self.seconds


class Loop:
    """Advances a State from its current step to its last, or to a stop that all ranks agree on."""

    def __init__(
        self,
        program: Program,
        state: State,
        checkpoints: Checkpoints,
        stops: Stops,
        clock: CheckpointClock,
        callbacks: Sequence[Callback] = (),
    ):
        self.program, self.state, self.checkpoints = program, state, checkpoints
        self.stops, self.clock, self.callbacks = stops, clock, callbacks
        self._finite = FiniteCheck(state) if program.finite is True else None
        #: The newest checkpoint that is on disk.
        self.saved: Saved | None = None
        self._write_error = ""
        self.blocked = 0.0
        #: Seconds of all steps, and of the first one if there are more: timers exclude the first step.
        self.seconds, self.warm_up = 0.0, 0.0
        self.timers = state.world.timers
        self._root = state.world.rank == 0
        self._slowest = 0.0

    def run(self) -> int:
        """Step until done (returns NONE) or stopped (returns the reason). Collective.

        In both cases a checkpoint then holds the final state; raises CheckpointError if it cannot be written, and
        AnyrankError if the program wants finite values and one is not. `seconds` is then the time of the steps,
        `blocked` the time for which checkpoints blocked this process.
        """
        self._start = time.monotonic()
        self.timers.clear()
        self._check_finite()
        self._refuse_not_finite()
        reason = self._steps()
        self.state.device.synchronize()
        self.state.world.timers = Timers()  # what follows is not part of a step
        self.seconds = time.monotonic() - self._start
        self._refuse_not_finite()  # the steps have agreed only on those before the last one
        if reason == NONE:
            for callback in self.callbacks:
                callback.on_done(self.state)
        self._finish()
        if not self._is_saved():
            self._begin_checkpoint(finished=reason == NONE)
            self._finish()
        if not self._is_saved():
            raise of_all_ranks(CheckpointError(self._write_error))
        for callback in self.callbacks:
            callback.on_end(self.state)
        return reason

    def _is_saved(self) -> bool:
        """Return whether a checkpoint on disk holds the current state."""
        return self.saved is not None and self.saved.step == self.state.step

    def _finish(self) -> None:
        """Wait for the checkpoint that is being written."""
        self._record_checkpoint(self.checkpoints.finish())

    def _steps(self) -> int:
        program, state, agreement = self.program, self.state, Agreement(self.state.world)
        checkpoints, timers, first_step = self.checkpoints, self.timers, self.state.step
        last_time, process = time.monotonic(), os.getpid()
        done = self._done()
        for callback in self.callbacks:
            callback.on_start(state)
        while not done:
            if state.step >= self.stops.stop_at:
                agreement.collect()  # complete the reduction that was posted after the last step
                return STOP_AT
            for callback in self.callbacks:
                callback.before_step(state)
            began, waited = time.perf_counter(), timers.communicated()
            with explain_read_only():
                program.step(state)
            end_forked_child(process, None, "step")
            state.device.pace()
            timers.step(time.perf_counter() - began - (timers.communicated() - waited))
            state.step += 1
            self._check_finite()
            for callback in self.callbacks:
                callback.after_step(state)
            done = self._done()
            agreed = agreement.collect()
            if done:
                return NONE
            if agreed.stop:
                return agreed.stop
            self._checkpoint(agreed)
            now = time.monotonic()
            self._slowest = max(self._slowest, now - last_time)
            last_time = now
            # The time from now to the end of the run, if this rank requests a stop: the next step and one more, the
            # steps that the GPU has queued, a checkpoint that is being written, and the last checkpoint.
            needed = (2 + state.device.ahead) * self._slowest + (1 + checkpoints.pending) * self.clock.seconds_to_disk
            stop = self.stops.reason(now, needed)
            if self._finite is not None and self._finite.found:
                stop = NOT_FINITE
            due = self._root and self.clock.due(now)
            agreement.post(state.step, stop, due, checkpoints.working())
            if state.step == first_step + 1:  # the first step compiles kernels and touches new memory
                state.device.synchronize()
                state.world.barrier()  # otherwise the second step would wait for slower ranks
                self.warm_up = time.monotonic() - self._start
                timers.clear()
        return NONE

    def _check_finite(self) -> None:
        if self._finite is not None:
            self._finite.look()

    def _refuse_not_finite(self) -> None:
        """Raise AnyrankError on all ranks if any of them has found a value that is not finite. Collective.

        Ranks agree on a step after the next one, before a checkpoint of this step can be sealed. That checkpoint is
        removed; one of an earlier step is completed.
        """
        first = self._finite.first() if self._finite is not None else None
        if self._finite is None or first is None:
            return
        if self.checkpoints.pending_step < first.step:
            self._finish()
        else:
            self.checkpoints.discard()
        good = self.checkpoints.newest_before(int(first.step))
        where = f"The last good checkpoint is {good}: resume continues from it." if good else "No checkpoint is good."
        message = f"{self._finite.describe(first)}, but {self.program.name} wants finite values. {where}"
        raise of_all_ranks(AnyrankError(f"{message} Correct the program, or start a new run with other parameters."))

    def _done(self) -> bool:
        """Return whether the state is final. Collective if the program overrides `done`: all ranks must agree."""
        program, state = self.program, self.state
        done = bool(program.done(state))
        if type(program).done is Program.done or state.world.size == 1:
            return done
        any_done, any_not_done = state.world.allreduce(np.array([done, not done], np.int32), "max").tolist()
        if any_done and any_not_done:
            message = f"{program.name}: done is true on some ranks and false on others after step {state.step}: all "
            fix = "ranks must agree. Decide by a value that all ranks share, such as exact.max of a Field."
            raise of_all_ranks(AnyrankError(message + fix))
        return done

    def _checkpoint(self, agreed: Agreed) -> None:
        checkpoints = self.checkpoints
        if checkpoints.pending and not agreed.working:
            with self.timers.during("checkpoint"):
                self._record_checkpoint(checkpoints.proceed())
        steps = self.clock.interval.steps
        at_interval = bool(steps and self.state.step % steps == 0)
        if not at_interval and (checkpoints.pending or not agreed.due):
            return
        with self.timers.during("checkpoint"):
            if at_interval:
                self._finish()
            self._begin_checkpoint()
        self.clock.last = time.monotonic()

    def _begin_checkpoint(self, finished: bool = False) -> None:
        for callback in self.callbacks:
            callback.before_checkpoint(self.state)
        self.checkpoints.begin(finished)

    def _record_checkpoint(self, saved: Saved | None) -> None:
        if saved is None:
            return
        self.blocked += saved.blocked
        if saved.error:
            self._write_error = saved.error
        else:
            self.saved = saved
            self.clock.blocked = saved.blocked
            self.clock.seconds_to_disk = max(self.clock.seconds_to_disk, saved.seconds)
        for callback in self.callbacks:
            callback.on_checkpoint(saved)
