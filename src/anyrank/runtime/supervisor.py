"""The supervisor: restarts a run that died or hung, from its last valid checkpoint, on the remaining hosts."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from anyrank.errors import STOPPED, UsageError
from anyrank.launcher import rank_command
from anyrank.layout import even_cuts
from anyrank.observe.events import Events
from anyrank.runtime.launch import Launch, Slots, exit_code, responding_hosts
from anyrank.runtime.options import Options
from anyrank.runtime.placement import plan_threads
from anyrank.runtime.stops import scheduler_limit
from anyrank.runtime.watchdog import STEP_FILE, make_step_file, position

#: Seconds of wait before the first restart, and the longest wait; each wait is twice as long as the one before.
FIRST_WAIT, LONGEST_WAIT = 1, 60
#: Seconds for which a restart waits for the run folder's lock.
PATIENCE_AFTER_DEATH = 300
#: A cause that is never an error of the program, even if it occurs repeatedly.
UNREACHABLE = "unreachable"
_HOST = r"[^\s,:]+"
#: The largest number of slots of a host: mpiexec loops for ever on larger numbers.
MOST_SLOTS = 1 << 16
#: The number of steps that rank 0 may be ahead of a rank that dies: the agreement is one step late.
_AHEAD = 2
#: Signals that end a rank without a requested stop.
_DEADLY = {signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGTERM}


def parse_hosts(hosts: str, ranks: int) -> Slots:
    """Parse hosts with slots, `a:4,b:4`, or without, `a,b`; then the ranks are distributed evenly.

    Raises UsageError if the text cannot be parsed, or if there are more ranks than slots.
    """
    names = [part.partition(":")[0] for part in hosts.split(",")]
    if re.fullmatch(rf"{_HOST}(,{_HOST})*", hosts):
        cuts = even_cuts(ranks, len(names))
        parsed = [(name, b - a) for name, a, b in zip(names, cuts, cuts[1:], strict=False) if b > a]
    elif re.fullmatch(rf"{_HOST}:\d+(,{_HOST}:\d+)*", hosts):
        parsed = [(name, int(part.partition(":")[2])) for name, part in zip(names, hosts.split(","), strict=True)]
    elif hosts:
        raise UsageError(f"--hosts {hosts!r} cannot be read. Write node1:8,node2:8, or node1,node2.")
    else:
        return []
    for name, number in parsed:
        if not 1 <= number <= MOST_SLOTS:
            raise UsageError(
                f"--hosts {hosts}: {name} has {number} slots, but must have 1 to {MOST_SLOTS}. Give each host the "
                "number of its cores."
            )
    total = sum(number for _, number in parsed)
    if ranks > total:
        fix = f"Use -n {total}, or more hosts."
        raise UsageError(f"-n {ranks} is more than the {total} slots of --hosts {hosts}. {fix}")
    return parsed


@dataclass(frozen=True)
class Death:
    """How an attempt ended: mpiexec's status, the last step (None if there was none), and the cause as text."""

    status: int
    step: int | None
    cause: str

    def __str__(self) -> str:
        return f"died {'before its first step' if self.step is None else f'at step {self.step}'} ({self.cause})"

    def repeats(self, before: Death | None) -> bool:
        """Return whether it repeats the previous death: at the same step, and with the same cause.

        Numbers in the cause may differ: they are process ids, addresses and times.
        """
        if (
            before is None
            or UNREACHABLE in self.cause
            or self.status != before.status
            or _without_numbers(self.cause) != _without_numbers(before.cause)
        ):
            return False
        if self.step is None or before.step is None:
            return self.step == before.step
        return abs(self.step - before.step) <= _AHEAD


def _without_numbers(text: str) -> str:
    return re.sub(r"0x[0-9a-fA-F]+|\d+", "#", text)


class Supervisor:
    """Executes a run in separate processes, and restarts it up to `--max-restarts` times.

    `words` is the command line; it contains the run folder `out`. Raises UsageError for hosts or numbers of ranks that
    are not valid.
    """

    def __init__(self, options: Options, out: Path, words: Sequence[str]):
        if options.max_restarts and options.min_ranks > options.ranks:
            raise UsageError(
                f"--min-ranks {options.min_ranks} is more than -n {options.ranks}. Use at most {options.ranks}."
            )
        if options.ranks > MOST_SLOTS and not options.hosts:
            raise UsageError(
                f"-n {options.ranks} is more than the {MOST_SLOTS} ranks of a host. Use fewer, or --hosts."
            )
        self.options, self.out, self.words = options, out, words
        self.hosts = self._remaining_hosts = parse_hosts(options.hosts, options.ranks)
        self._ranks, self._restarts = options.ranks, 0
        self._previous: Death | None = None
        self._environment = plan_threads(options.threads)[1]
        limit = options.walltime_seconds or scheduler_limit(os.environ, time.time())
        self._deadline = time.monotonic() + limit if limit is not None else math.inf

    def run(self) -> int:
        """Run until the end; return the exit code of the last attempt."""
        with Launch(self.out / "hang.json") as launch, TemporaryDirectory(prefix="anyrank-", dir=_memory()) as folder:
            steps = Path(folder) / "step"
            while True:
                seen = len(self._events())
                if self.options.max_restarts:
                    make_step_file(steps)
                    self._environment[STEP_FILE] = str(steps)
                status = launch.run(self._ranks, self._command(), self._remaining_hosts, self._environment)
                code = exit_code(status, self.out)
                if code == 1 and self._is_stopped(launch.stop_signal, status):
                    return STOPPED
                if code != 1 or launch.stop_signal or not self.options.max_restarts:
                    if self._restarts and not self.options.quiet:
                        many = "restart" if self._restarts == 1 else "restarts"
                        _print(f"{'ended' if code else 'finished'} after {self._restarts} {many}")
                    return code
                cause = (launch.hung and self._hang()) or self._failure(seen) or _cause_of_status(status)
                if not self._restart(launch, Death(status, self._reached(steps), cause)):
                    return code

    def _is_stopped(self, number: int, status: int) -> bool:
        """Return whether the ranks of a run that can be resumed ended because of a stop, and not of an error.

        Either the stop signal ended them before their first step, or nobody reads the standard output any more, as
        with `| head`, which ends other tools, too.
        """
        early = bool(number) and status in (number, 128 + number, -number)
        if early or status == -signal.SIGPIPE:
            from anyrank.runtime.folder import RunFolder  # imports h5py, which few starts need

            if RunFolder(self.out).description.exists():
                if early:
                    _print(f"stopped by {_name(number)} before the first step")
                return True
        return False

    def _reached(self, steps: Path) -> int | None:
        """Return the step that rank 0 has reached, or that of the newest checkpoint if rank 0 is on another host."""
        from anyrank.storage.checkpoint_folder import checkpoint_files, step_of  # imports h5py, which few starts need

        step = position(steps)
        return step if step is not None else max(map(step_of, checkpoint_files(self.out / "checkpoints")), default=None)

    def _command(self) -> list[str]:
        """Return the command of the ranks: later options override earlier ones and disable what the supervisor does."""
        words = [*self.words]
        if self.options.max_restarts:
            words += ["--max-restarts", "0"]
        if self.hosts:
            words += ["--hosts", ""]
        if self._restarts:
            words += ["-n", str(self._ranks)]
            if self.options.chaos:
                from anyrank.runtime.chaos import for_ranks

                words += ["--chaos", for_ranks(self.options.chaos, self._ranks), "--i-mean-it"]
            if self._deadline < math.inf:
                words += ["--walltime", f"{self._deadline - time.monotonic():.1f}s"]
        return rank_command(words)

    def _restart(self, launch: Launch, death: Death) -> bool:
        """Report the death and wait until the restart; False if there is no restart."""
        used, ranks = self._remaining_hosts, self._ranks
        if len(self.hosts) > 1:
            self._remaining_hosts = responding_hosts(self.hosts)
            self._ranks = min(self.options.ranks, sum(number for _, number in self._remaining_hosts))
        wait = min(FIRST_WAIT << self._restarts, LONGEST_WAIT)
        refusal = self._refusal(death, wait)
        self._previous = death
        self._restarts += 1
        next_ = f"restart {self._restarts} of {self.options.max_restarts} in {wait} s, on {self._ranks} ranks"
        self._record_death(death, ranks, used, refusal or next_)
        if refusal:
            return False
        from anyrank.runtime.folder import LOCK_PATIENCE

        # The file system may keep the lock of a lost host for minutes.
        self._environment[LOCK_PATIENCE] = str(PATIENCE_AFTER_DEATH)
        launch.wait(wait)
        if launch.stop_signal:
            _print("stop requested: not restarted")
        return not launch.stop_signal

    def _refusal(self, death: Death, wait: float) -> str:
        """Return why there is no restart; empty if there is one."""
        if death.repeats(self._previous):
            return "the same failure as before, which would repeat: not restarted"
        if self._restarts == self.options.max_restarts:
            return f"--max-restarts {self.options.max_restarts} is used up"
        if self._ranks < self.options.min_ranks:
            names = ", ".join(host for host, _ in self._remaining_hosts) or "none"
            return f"remaining hosts: {names}, too few for --min-ranks {self.options.min_ranks}"
        if time.monotonic() + wait > self._deadline - 1:
            return "the wall-time limit is reached"
        return ""

    def _record_death(self, death: Death, ranks: int, used: Slots, then: str) -> None:
        gone = [host for host, _ in self.hosts if host not in dict(self._remaining_hosts)]
        lost = f"; {', '.join(gone)} {'do' if len(gone) > 1 else 'does'} not respond" if gone else ""
        _print(f"{death}{lost}: {then}")
        attempt = {"attempt": self._restarts, **asdict(death), "ranks": ranks, "hosts": [host for host, _ in used]}
        with suppress(OSError):  # the run may have died before it made the folder
            events = Events(self.out / "events.jsonl")
            events.say("died", **attempt, gone=gone, then=then)
            events.close()

    def _events(self) -> list[str]:
        try:
            return (self.out / "events.jsonl").read_text(encoding="utf-8").splitlines()
        except OSError:
            return []

    def _failure(self, seen: int) -> str:
        """Return the uncaught error in the events after the first `seen` lines; empty without one."""
        with suppress(ValueError, LookupError):
            failed = [json.loads(line) for line in self._events()[seen:] if '"event": "failed"' in line]
            return f"{_ranks(failed[-1]['ranks'])} failed: {failed[-1]['error']}"
        return ""

    def _hang(self) -> str:
        """Return the cause in the report of a hang."""
        with suppress(OSError, ValueError, LookupError):
            report = json.loads((self.out / "hang.json").read_text(encoding="utf-8"))
            lost = [f"{_ranks(ranks)} on {host} {UNREACHABLE}" for host, ranks in report["unreachable"].items()]
            suspect = report["groups"][0]
            return "hung: " + (", ".join(lost) or f"{_ranks(suspect['ranks'])} at {suspect['where']}")
        return "hung"


def _ranks(ranks: str) -> str:
    return f"rank {ranks}" if ranks.isdecimal() else f"ranks {ranks}"


def _cause_of_status(status: int) -> str:
    """Return the meaning of mpiexec's exit status: MPICH returns the signal that killed a rank, other MPIs add 128."""
    if status < 0:
        return f"mpiexec was killed by {_name(-status)}"
    number = status - 128 if status > 128 else status
    if number in _DEADLY:
        return f"a rank was killed by {_name(number)}"
    return f"mpiexec ended with status {status}" if status else "the ranks ended before the run was finished"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _memory() -> str | None:
    """Return a folder in memory, None if there is none."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _print(text: str) -> None:
    print(f"anyrank: {text}", file=sys.stderr, flush=True)
