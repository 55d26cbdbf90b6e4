"""One execution of a Program on all ranks: from a folder and parameters to an exit code."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from anyrank.checkpoint import Checkpoints, Restored
from anyrank.device import Weightless
from anyrank.errors import UsageError, spans
from anyrank.kernel import BODIES
from anyrank.observe.events import Events
from anyrank.observe.log import open_log
from anyrank.observe.picture import drawn
from anyrank.observe.progress import Progress, si
from anyrank.observe.timers import PHASES
from anyrank.program import Program
from anyrank.provenance import provenance
from anyrank.run.companion import Companion, Digests
from anyrank.run.failure import of_the_gpu
from anyrank.run.folder import RunFolder
from anyrank.run.loop import GUESSED_COST, GUESSED_RATE, Clock, Loop
from anyrank.run.memory import shortage, taken
from anyrank.run.options import Options
from anyrank.run.placement import place
from anyrank.run.startup import check_ranks, check_state, device_of
from anyrank.run.stops import NONE, Stops, describe
from anyrank.run.watchdog import Watchdog
from anyrank.state import State
from anyrank.world import World, together

FINISHED, STOPPED = 0, 75
T = TypeVar("T")


class Session:
    """One execution: opens the folder, sets the state up or restores it, loops, and reports. Collective."""

    def __init__(self, program: Program, source: str, world: World, out: Path, options: Options, command: str):
        self.started = time.monotonic()
        self.program, self.source, self.world = program, source, world
        self.folder, self.options, self.command = RunFolder(out), options, command
        self.root = world.rank == 0
        #: Whether the folder is this run's and can be written, so that what happens is told there.
        self.begun = False
        self._state: State | None = None

    def execute(self) -> int:
        """Carry the run out; the exit code: 0 finished, 75 stopped with a valid checkpoint.

        Raises AnyrankError on all ranks together for what a user can mend.
        """
        # It is never closed: reports of errors and the end of MPI may hang, too.
        self.watchdog = Watchdog(self.options.hang_seconds)
        self.companions: list[Companion] = []
        try:
            masks = self.world.node_gather(frozenset(os.sched_getaffinity(0)))
            self.cores = len(frozenset().union(*masks))
            self.place, self.crowd = together(self.world, lambda: place(self.options, masks, self.world.node_rank))
            together(self.world, lambda: BODIES.prefer(self.options.body, self.world.node_rank))
            self.device = device_of(self.world)
            self.warnings = check_ranks(self.world, self.program, self.source, self.options)
            self.transfer = self._choose_transfer()
            state = self._state = self._declare()
            if self._finished_already():
                return FINISHED
            # From here to the very end a signal asks, and does not kill.
            self.stops = Stops(self.folder.stop, self.options.walltime_seconds, self.started, self.root)
            try:
                return self._execute(state)
            finally:
                self.stops.close()
                self.folder.unlock()
        except BaseException as error:
            self._log_calls()
            if told := of_the_gpu(self.world, error, self.folder.path if self.begun else None):
                raise told from error
            raise
        finally:
            for companion in self.companions:
                companion.close()

    def _choose_transfer(self) -> str:
        """Choose how halos of GPUs travel, and return why so; empty where there is none. Collective."""
        if self.world.every(BODIES.device.on_host):
            self.world.transfer = "host"
            return ""
        from anyrank.exchange.aware import choose  # of no use without a GPU

        self.world.transfer, why = choose(self.world, BODIES.device, self.options.transfer)
        return why

    def _log_calls(self) -> None:
        """With --check, put the last calls of this rank into its log."""
        if self.world.recorder is not None and self.begun:
            self.log.info("the last calls:\n%s", "\n".join(self.world.recorder.recent()))

    def note_failure(self, ranks: str, error: str) -> None:
        """Put what ended the run into its events, for people and for the supervisor. Any one rank calls it."""
        step = self._state.step if self._state is not None else 0
        with suppress(OSError):  # the error itself has been told, or is about to be
            events = Events(self.folder.events)
            events.say("failed", step=step, ranks=ranks, error=error)
            events.close()

    def _declare(self) -> State:
        seed, steps = int(self.program.parameters.get("seed", 0)), self.options.halo_steps
        together(self.world, self._allow_deep_halos)
        if not self.world.every(BODIES.device.on_host):  # what a card cannot hold is told before it is asked to
            trial = self._state_of(seed, steps)
            trial.device = Weightless()
            together(self.world, lambda: self.program.declare(trial))
            self.world.agree(shortage(trial, self.program.name))
        state = self._state_of(seed, steps)
        together(self.world, lambda: self.program.declare(state))
        check_state(state, self.program.steps)
        return state

    def _state_of(self, seed: int, steps: int) -> State:
        limit = self.options.memory_bytes
        return State(self.world, self.options.split, seed, steps, folder=self.folder.path, memory_limit=limit)

    def _allow_deep_halos(self) -> None:
        steps, name = self.options.halo_steps, self.program.name
        if steps > 1 and self.program.deep_halos is not True:
            raise UsageError(
                f"--halo-steps {steps} must be 1 unless the program allows more, and {name} does not. Leave it out, or "
                "put deep_halos = True into it, if only setup and kernels write fields, and kernels nothing else."
            )

    def _finished_already(self) -> bool:
        """Whether there is nothing to do, and if so says it; else makes and locks the folder."""
        folder, program = self.folder, self.program

        def prepare() -> bool:
            if folder.check(program.name, program.parameters):
                if self._say_finished():
                    return True
                self._refuse_chaos()
            folder.lock()
            # What another process did until we had the lock counts, too.
            if folder.check(program.name, program.parameters) and self._say_finished():
                return True
            folder.create(program.name, self.source, program.parameters, self.options.kept())
            return False

        return self.world.bcast(together(self.world, lambda: self._writing(prepare) if self.root else False))

    def _refuse_chaos(self) -> None:
        """Whoever has a run in a folder may have forgotten what stands in the command line."""
        if self.options.chaos and not self.options.i_mean_it:
            raise UsageError(
                f"--chaos {self.options.chaos!r} would harm the run that --out {self.folder.path} holds. "
                "Use another --out, or add --i-mean-it."
            )

    def _writing(self, action: Callable[[], T]) -> T:
        """The action's value; UsageError where the file system refuses it."""
        try:
            return action()
        except OSError as error:
            raise UsageError(
                f"--out {self.folder.path} cannot be written ({error.strerror}). Mend that, or use another --out."
            ) from None

    def _say_finished(self) -> bool:
        summary = self.folder.finished()
        if summary is None:
            return False
        steps, digest = summary["steps"], summary["digest"]
        print(f"{self.program.name}: {self.folder.path} is finished: {steps} steps, digest {digest}.")
        if self.options.as_json:
            print(json.dumps(summary), flush=True)
        return True

    def _execute(self, state: State) -> int:
        world, program, options = self.world, self.program, self.options
        self.log = together(world, lambda: self._writing(lambda: open_log(self.folder.log, world.rank)))
        events = self.folder.events if self.root else None
        self.events = together(world, lambda: self._writing(lambda: Events(events)))
        self.begun = True
        self.watchdog.report_to(world, self.folder.path)
        self._log_start()
        checkpoints = together(world, lambda: self._checkpoints(state))
        faults = self._faults()
        self.companions += together(world, lambda: self._writing(lambda: [*self._companions(checkpoints, faults)]))
        restored = self._begin(state, checkpoints)
        self.watchdog.beat(state.step)
        if world.recorder is not None:
            world.recorder.step = state.step
        total = program.steps if isinstance(program.steps, int) else 0
        self.progress = Progress(program.name, total, state.step, program.work(), self.root and not options.quiet)
        self.progress.line(f"run folder {self.folder.path}: stop with Ctrl-C, then anyrank resume {self.folder.path}")
        for warning in self.warnings:
            self.progress.line(f"warning: {warning}")
        if restored is not None:
            self._say_restored(restored)
        cost = sum(field.nbytes for field in state.fields()) / GUESSED_RATE + GUESSED_COST
        clock = Clock(options.interval, options.mtbf_seconds, cost, cost)
        loop = Loop(
            program,
            state,
            checkpoints,
            self.stops,
            clock,
            self.progress,
            self.events,
            self.log,
            self.watchdog,
            stop_at=options.stop_at,
            companions=self.companions,
        )
        first = state.step
        reason = loop.run()
        self.progress.close(state.step)
        return self._end(state, loop, reason, first, restored)

    def _log_start(self) -> None:
        facts = provenance(self.world, self.command)
        self.log.info("start: %s", json.dumps(facts))
        for warning in self.warnings:
            self.log.warning("%s", warning)
        self.log.info("rank %d of %d: %s, %s", self.world.rank, self.world.size, self.place, self.device)
        if self.transfer:
            self.log.info("halos of GPUs travel %s: %s", self.world.transfer, self.transfer)
            self.events.say("transfer", way=self.world.transfer, why=self.transfer)
        if self.crowd:
            self.log.warning("%s", self.crowd)
        self.events.say("start", ranks=self.world.size, command=facts["command"], warnings=self.warnings)

    def _checkpoints(self, state: State) -> Checkpoints:
        return Checkpoints(
            self.folder.checkpoints,
            state,
            self.program.name,
            self.program.parameters,
            io=self.options.checkpoint_io,
            keep=self.options.keep,
            command=self.command,
        )

    def _faults(self) -> list[Any]:
        """The faults that the run is to meet. Collective."""
        if not self.options.chaos:
            return []
        from anyrank.run.chaos import to_come

        return to_come(self.world, self.options.chaos, self.folder.path)

    def _companions(self, checkpoints: Checkpoints, faults: list[Any]) -> Iterator[Companion]:
        if self.options.digests:
            yield Digests(self.folder.digests if self.root else None)
        if self.options.chaos:
            from anyrank.run.chaos import Chaos

            yield Chaos(faults, self.world, self.folder.path, checkpoints)

    def _begin(self, state: State, checkpoints: Checkpoints) -> Restored | None:
        for name in checkpoints.sweep():
            self.events.say("swept", file=name)
        restored = checkpoints.restore()
        if restored is None:
            self.program.setup(state)
        return restored

    def _say_restored(self, restored: Restored) -> None:
        for message in restored.refused:
            self.progress.line(f"checkpoint refused: {message}")
            self.log.warning("checkpoint refused: %s", message)
            self.events.say("checkpoint-refused", reason=message)
        for change in restored.changes:
            warning = f"{restored.path.name} was written with {change}: the bits may be others than without a stop"
            self.progress.line(f"warning: {warning}")
            self.log.warning("%s", warning)
        self.progress.line(f"resumed at step {restored.step} from {restored.path.name}")
        self.events.say("resumed", step=restored.step, file=restored.path.name)

    def _end(self, state: State, loop: Loop, reason: int, first: int, restored: Restored | None) -> int:
        finished = reason == NONE
        result = self.program.result(state) if finished else {}
        picture = self._picture(state) if finished and self.options.picture else None
        summary = self._summary(state, loop, reason, first, restored)
        if self.root:
            self._report(summary, result, picture)
        for name, body in BODIES.chosen.items():
            self.log.info("kernel %s: body %s (%s)", name, body.name, body.reason)
        self.world.barrier()
        self.events.close()
        return FINISHED if finished else STOPPED

    def _summary(self, state: State, loop: Loop, reason: int, first: int, restored: Restored | None) -> dict[str, Any]:
        """What summary.json says; collective, because it gathers bodies and memory."""
        saved = loop.saved
        assert saved is not None, "the loop ends with a checkpoint"
        amount, unit = self.program.work()
        return {
            "program": self.program.name,
            "parameters": self.program.parameters,
            "ranks": self.world.size,
            "bodies": self._bodies(),
            "transfer": self.world.transfer,
            "steps": state.step,
            "digest": f"{saved.digest:016x}",
            "digests": {name: f"{value:016x}" for name, value in saved.digests.items()},
            "seconds": round(loop.seconds, 6),
            "rate": {"value": (state.step - first) * amount / max(loop.seconds, 1e-9), "unit": f"{unit}/s"},
            "checkpoints": {"blocked_seconds": round(loop.blocked, 6), "last_hidden": round(saved.hidden, 4)},
            "memory": taken(state),
            "timing": self._timing(loop),
            "crowded": not self.world.every(not self.crowd),
            "nodes": self.world.total(int(self.world.node_rank == 0)),
            "cores": self.world.total(self.cores if self.world.node_rank == 0 else 0),
            "resumed_from": restored.step if restored else None,
            "stopped_by": None if reason == NONE else describe(reason),
            "finished": reason == NONE,
            "provenance": provenance(self.world, self.command),
        }

    def _timing(self, loop: Loop) -> dict[str, Any]:
        """What the seconds of the slowest rank's steps went to, and the traffic of one: means over ranks. Collective.

        Without the first step, in which kernels are compiled and memory is new, unless there was no other.
        """
        timers, seconds = loop.timers, loop.seconds - loop.warm_up
        *slowest, longest = self.world.allreduce(np.array([*timers.computed, seconds]), "max")
        phases = timers.phases(seconds, np.array(slowest), longest)
        mine = [*phases.values(), *timers.traffic.values(), timers.noise]
        means = np.mean(np.array(self.world.comm.allgather(mine)), axis=0).tolist()
        counted, traffic = max(1, timers.steps), means[len(PHASES) :]
        return {
            "steps": timers.steps,
            "seconds": float(longest),
            "warm_up": loop.warm_up,
            "phases": dict(zip(PHASES, means, strict=False)),
            "traffic": {name: n / counted for name, n in zip(timers.traffic, traffic, strict=False)},
            "noise": means[-1],
        }

    def _picture(self, state: State) -> Path | None:
        """The program's picture; a run is not lost because it could not be drawn."""
        path, problem = drawn(self.world, lambda: self.program.picture(state, self.folder.path))
        if problem:
            self.progress.line(f"no picture: {problem}")
            self.log.warning("no picture: %s", problem)
        return path

    def _bodies(self) -> dict[str, str]:
        """The body of every kernel that was used; with the ranks where they differ. Collective."""
        mine = {name: body.name for name, body in BODIES.chosen.items()}
        gathered = self.world.gather(mine)
        found: dict[str, dict[str, list[int]]] = {}
        for rank, bodies in enumerate(gathered or []):
            for kernel, body in bodies.items():
                found.setdefault(kernel, {}).setdefault(body, []).append(rank)
        return {
            kernel: next(iter(by)) if len(by) == 1 else ", ".join(f"{b} (ranks {spans(r)})" for b, r in by.items())
            for kernel, by in sorted(found.items())
        }

    def _report(self, summary: dict[str, Any], result: dict[str, Any], picture: Path | None) -> None:
        if summary["finished"]:
            self.folder.write_result(result)
        self.folder.write_summary(summary)
        name, rate = self.program.name, summary["rate"]
        how = "finished" if summary["finished"] else f"stopped by {summary['stopped_by']}"
        self.events.say(how.split()[0], step=summary["steps"], digest=summary["digest"])
        if not self.options.quiet:
            for key, value in result.items():
                print(f"{name}: {key} = {value}")
            print(
                f"{name}: {how} at step {summary['steps']} on {summary['ranks']} rank(s) in "
                f"{summary['seconds']:.2f} s, {si(rate['value'])}{rate['unit']}, digest {summary['digest']}"
            )
            if picture is not None:
                print(f"{name}: picture {picture}")
            if not summary["finished"]:
                print(f"{name}: go on with: anyrank resume {self.folder.path}")
        if self.options.as_json:
            print(json.dumps(summary), flush=True)
