"""The step loop: steps, agreement, checkpoints, until the state is final or all ranks agree to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from anyrank.errors import AnyrankError, CheckpointError, of_all_ranks
from anyrank.observe.timers import Timers
from anyrank.program import Program
from anyrank.runtime.agreement import Agreed, Agreement
from anyrank.runtime.callback import Callback
from anyrank.runtime.options import Interval, Options
from anyrank.runtime.stops import NONE, STOP_AT, Stops
from anyrank.state import State
from anyrank.storage.checkpoints import Checkpoints
from anyrank.storage.interval import young_interval
from anyrank.storage.write import Saved

#: What a checkpoint costs before the first one has told: bytes per second, and seconds for a small one.
GUESSED_RATE, GUESSED_COST = 1e9, 0.02
#: Bounds of an automatic interval in seconds: not busy with checkpoints, not an hour lost.
SHORTEST, LONGEST = 5.0, 3600.0


@dataclass
class Clock:
    """When checkpoints are due, on this rank's clock; rank 0's counts.

    `cost` is how long a checkpoint holds the steps up, `durable` how long it takes until it is on disk.
    """

    interval: Interval
    mtbf: float
    cost: float
    durable: float
    last: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, options: Options, state: State) -> Clock:
        """The clock that the options ask for, with a guess of what a checkpoint of the state costs."""
        cost = sum(member.nbytes for member in state.members.values()) / GUESSED_RATE + GUESSED_COST
        return cls(options.interval, options.mtbf_seconds, cost, cost)

    @property
    def seconds(self) -> float:
        """Seconds from one checkpoint to the next; infinite where steps decide, or nothing."""
        if self.interval.young:
            # What is hidden from us still loads the file system: leave it alone most of the time.
            least = max(SHORTEST, 10 * self.durable)
            return max(min(young_interval(self.cost, self.mtbf), LONGEST), least)
        return self.interval.seconds or math.inf

    def due(self, now: float) -> bool:
        """Whether it is time."""
        return now - self.last >= self.seconds


class Loop:
    """Carries a State from its present step to its last, or to a stop that all ranks agree on."""

    def __init__(
        self,
        program: Program,
        state: State,
        checkpoints: Checkpoints,
        stops: Stops,
        clock: Clock,
        callbacks: Sequence[Callback] = (),
    ):
        self.program, self.state, self.checkpoints = program, state, checkpoints
        self.stops, self.clock, self.callbacks = stops, clock, callbacks
        #: The newest checkpoint that is on disk.
        self.saved: Saved | None = None
        self._refusal = ""
        self.blocked = 0.0
        #: What the steps took, and the first of them alone, if it was not the only one: timers leave that out.
        self.seconds, self.warm_up = 0.0, 0.0
        self.timers = state.world.timers
        self._root = state.world.rank == 0
        self._slowest = 0.0

    def run(self) -> int:
        """Step until done (returns NONE) or stopped (returns the reason). Collective.

        Either way the state is then in a checkpoint of its own; raises CheckpointError where it cannot be.
        `seconds` is then what the steps took, `blocked` how long checkpoints held up this process.
        """
        self._began = time.monotonic()
        self.timers.clear()
        reason = self._steps()
        self.state.device.synchronize()
        self.state.world.timers = Timers()  # what comes now is no step
        self.seconds = time.monotonic() - self._began
        self._finish()
        if not self._is_saved():
            self.checkpoints.begin(finished=reason == NONE)
            self._finish()
        if not self._is_saved():
            raise of_all_ranks(CheckpointError(self._refusal))
        for callback in self.callbacks:
            callback.on_end(self.state)
        return reason

    def _is_saved(self) -> bool:
        """Whether the state as it is now is in a checkpoint that is on disk."""
        return self.saved is not None and self.saved.step == self.state.step

    def _finish(self) -> None:
        """Wait for the checkpoint under way."""
        self._note(self.checkpoints.finish())

    def _steps(self) -> int:
        program, state, agreement = self.program, self.state, Agreement(self.state.world)
        checkpoints, timers, first = self.checkpoints, self.timers, self.state.step
        before = time.monotonic()
        done = self._done()
        for callback in self.callbacks:
            callback.on_start(state)
        while not done:
            if state.step >= self.stops.stop_at:
                agreement.collect()
                return STOP_AT
            for callback in self.callbacks:
                callback.before_step(state)
            began, waited = time.perf_counter(), timers.communicated()
            program.step(state)
            state.device.pace()
            timers.step(time.perf_counter() - began - (timers.communicated() - waited))
            state.step += 1
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
            self._slowest = max(self._slowest, now - before)
            before = now
            # Until the stop: this step and one more, those that a GPU has yet to do, a checkpoint under way, and the
            # last, which nothing hides.
            needed = (2 + state.device.ahead) * self._slowest + (1 + checkpoints.pending) * self.clock.durable
            stop = self.stops.asked(now, needed)
            due = self._root and self.clock.due(now)
            agreement.post(state.step, stop, due, checkpoints.working())
            if state.step == first + 1:  # it compiles kernels and touches memory first
                state.device.synchronize()
                state.world.barrier()  # or else its end on other ranks is waited for in the second step
                self.warm_up = time.monotonic() - self._began
                timers.clear()
        return NONE

    def _done(self) -> bool:
        """Whether the state is final, as the program says on all ranks alike; steps are compared at the start."""
        program, state = self.program, self.state
        done = bool(program.done(state))
        if type(program).done is Program.done or state.world.size == 1:
            return done
        some, others = state.world.allreduce(np.array([done, not done], np.int32), "max").tolist()
        if some and others:
            told = f"{program.name}: done is true on some ranks and not on others after step {state.step}: what one "
            fix = "rank sees must not end the run. Decide by what all ranks share, such as exact.max of a Field."
            raise of_all_ranks(AnyrankError(told + fix))
        return done

    def _checkpoint(self, agreed: Agreed) -> None:
        checkpoints = self.checkpoints
        if checkpoints.pending and not agreed.working:
            with self.timers.during("checkpoint"):
                self._note(checkpoints.proceed())
        steps = self.clock.interval.steps
        here = bool(steps and self.state.step % steps == 0)
        if not here and (checkpoints.pending or not agreed.due):
            return
        with self.timers.during("checkpoint"):
            if here:
                self._finish()
            checkpoints.begin()
        self.clock.last = time.monotonic()

    def _note(self, saved: Saved | None) -> None:
        if saved is None:
            return
        self.blocked += saved.blocked
        if saved.error:
            self._refusal = saved.error
        else:
            self.saved = saved
            self.clock.cost, self.clock.durable = saved.blocked, max(self.clock.durable, saved.seconds)
        for callback in self.callbacks:
            callback.on_checkpoint(saved)
