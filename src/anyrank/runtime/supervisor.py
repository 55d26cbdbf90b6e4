"""The supervisor: starts a run again that died or hung, from its last good checkpoint, on the hosts that are left."""

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

from anyrank.errors import UsageError
from anyrank.launcher import rank_command
from anyrank.layout import even_cuts
from anyrank.observe.events import Events
from anyrank.runtime.launch import Launch, Slots, exit_code, responding_hosts
from anyrank.runtime.options import Options
from anyrank.runtime.placement import plan_threads
from anyrank.runtime.stops import scheduler_limit
from anyrank.runtime.watchdog import STEP_FILE, make_step_file, position

#: Seconds before the first restart, and at most; each one takes twice as long as the one before.
FIRST_WAIT, LONGEST_WAIT = 1, 60
#: Seconds for which a restart waits for the run folder's lock.
PATIENCE_AFTER_DEATH = 300
#: A cause that is no fault of the program, however often it comes.
OUT_OF_REACH = "out of reach"
_HOST = r"[^\s,:]+"
#: The most ranks that a host may be given: mpiexec spins for ever on numbers beyond its own.
MOST_SLOTS = 1 << 16
#: How many steps rank 0 may be ahead of a rank that dies: the ranks agree one step later.
_AHEAD = 2
#: Signals of which a rank dies that nobody asked to stop.
_DEADLY = {signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGTERM}


def slots(hosts: str, ranks: int) -> Slots:
    """Hosts and their slots from `a:4,b:4`, or from `a,b`, over which the ranks are spread evenly.

    Raises UsageError where it cannot be read, or where the ranks do not fit.
    """
    names = [part.partition(":")[0] for part in hosts.split(",")]
    if re.fullmatch(rf"{_HOST}(,{_HOST})*", hosts):
        cuts = even_cuts(ranks, len(names))
        found = [(name, b - a) for name, a, b in zip(names, cuts, cuts[1:], strict=False) if b > a]
    elif re.fullmatch(rf"{_HOST}:\d+(,{_HOST}:\d+)*", hosts):
        found = [(name, int(part.partition(":")[2])) for name, part in zip(names, hosts.split(","), strict=True)]
    elif hosts:
        raise UsageError(f"--hosts {hosts!r} cannot be read. Write node1:8,node2:8, or node1,node2.")
    else:
        return []
    for name, number in found:
        if not 1 <= number <= MOST_SLOTS:
            raise UsageError(
                f"--hosts {hosts}: {name} has {number} slots, and must have 1 to {MOST_SLOTS}. Give each host the "
                "number of its cores."
            )
    fit = sum(number for _, number in found)
    if ranks > fit:
        raise UsageError(f"-n {ranks} is more than the {fit} slots of --hosts {hosts}. Use -n {fit}, or more hosts.")
    return found


@dataclass(frozen=True)
class Death:
    """How an attempt ended: mpiexec's status, the step that was reached, None if none was, and the cause in words."""

    status: int
    step: int | None
    cause: str

    def __str__(self) -> str:
        return f"died {'before its first step' if self.step is None else f'at step {self.step}'} ({self.cause})"

    def again(self, before: Death | None) -> bool:
        """Whether it is the one before once more: at the same step, and in the same words.

        Numbers in the words may differ: they are process ids, addresses and times.
        """
        if (
            before is None
            or OUT_OF_REACH in self.cause
            or self.status != before.status
            or _wordy(self.cause) != _wordy(before.cause)
        ):
            return False
        if self.step is None or before.step is None:
            return self.step == before.step
        return abs(self.step - before.step) <= _AHEAD


def _wordy(text: str) -> str:
    return re.sub(r"0x[0-9a-fA-F]+|\d+", "#", text)


class Supervisor:
    """Carries a run out in processes of its own, and again as often as `--max-restarts` allows.

    `words` are the command line, in which the run folder `out` stands. Raises UsageError for hosts or numbers
    of ranks that cannot be.
    """

    def __init__(self, options: Options, out: Path, words: Sequence[str]):
        if options.max_restarts and options.min_ranks > options.ranks:
            raise UsageError(f"--min-ranks {options.min_ranks} is more than -n {options.ranks}. Use at most that.")
        self.options, self.out, self.words = options, out, words
        self.hosts = self._left = slots(options.hosts, options.ranks)
        self._ranks, self._restarts = options.ranks, 0
        self._before: Death | None = None
        self._more = plan_threads(options.threads)[1]
        limit = options.walltime_seconds or scheduler_limit(os.environ, time.time())
        self._deadline = time.monotonic() + limit if limit is not None else math.inf

    def run(self) -> int:
        """The exit code of the last attempt."""
        with Launch(self.out / "hang.json") as launch, TemporaryDirectory(prefix="anyrank-", dir=_memory()) as folder:
            steps = Path(folder) / "step"
            while True:
                told = len(self._events())
                if self.options.max_restarts:
                    make_step_file(steps)
                    self._more[STEP_FILE] = str(steps)
                status = launch.run(self._ranks, self._command(), self._left, self._more)
                code = exit_code(status, self.out)
                if code != 1 or launch.stop_signal or not self.options.max_restarts:
                    if self._restarts and not self.options.quiet:
                        many = "restart" if self._restarts == 1 else "restarts"
                        _say(f"{'ended' if code else 'finished'} after {self._restarts} {many}")
                    return code
                cause = (launch.hung and self._hang()) or self._failure(told) or _ending(status)
                if not self._restart(launch, Death(status, self._reached(steps), cause)):
                    return code

    def _reached(self, steps: Path) -> int | None:
        """The step that rank 0 has reached; its newest checkpoint's, where rank 0 is on another host."""
        from anyrank.storage.keep import found, step_of  # takes h5py along, which few starts need

        at = position(steps)
        return at if at is not None else max(map(step_of, found(self.out / "checkpoints")), default=None)

    def _command(self) -> list[str]:
        """The words for the ranks: of the same options the last counts, and what we do they need not."""
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
        """Tell of the death, and wait for the time to start again; False where there is none."""
        used, ranks = self._left, self._ranks
        if len(self.hosts) > 1:
            self._left = responding_hosts(self.hosts)
            self._ranks = min(self.options.ranks, sum(number for _, number in self._left))
        wait = min(FIRST_WAIT << self._restarts, LONGEST_WAIT)
        refusal = self._refusal(death, wait)
        self._before = death
        self._restarts += 1
        next_ = f"restart {self._restarts} of {self.options.max_restarts} in {wait} s, on {self._ranks} ranks"
        self._tell(death, ranks, used, refusal or next_)
        if refusal:
            return False
        from anyrank.runtime.folder import LOCK_PATIENCE

        # The file system may keep the lock of a host that is gone for minutes.
        self._more[LOCK_PATIENCE] = str(PATIENCE_AFTER_DEATH)
        launch.wait(wait)
        if launch.stop_signal:
            _say("asked to stop: not restarted")
        return not launch.stop_signal

    def _refusal(self, death: Death, wait: float) -> str:
        """Why there is no restart, empty where there is one."""
        if death.again(self._before):
            return "just as before, so it would again: not restarted"
        if self._restarts == self.options.max_restarts:
            return f"--max-restarts {self.options.max_restarts} is used up"
        if self._ranks < self.options.min_ranks:
            names = ", ".join(host for host, _ in self._left) or "none"
            return f"hosts left: {names}, too few for --min-ranks {self.options.min_ranks}"
        if time.monotonic() + wait > self._deadline - 1:
            return "the wall time is over"
        return ""

    def _tell(self, death: Death, ranks: int, used: Slots, then: str) -> None:
        gone = [host for host, _ in self.hosts if host not in dict(self._left)]
        lost = f"; {', '.join(gone)} {'do' if len(gone) > 1 else 'does'} not answer" if gone else ""
        _say(f"{death}{lost}: {then}")
        attempt = {"attempt": self._restarts, **asdict(death), "ranks": ranks, "hosts": [host for host, _ in used]}
        with suppress(OSError):  # it may have died before there was a folder
            events = Events(self.out / "events.jsonl")
            events.say("died", **attempt, gone=gone, then=then)
            events.close()

    def _events(self) -> list[str]:
        try:
            return (self.out / "events.jsonl").read_text(encoding="utf-8").splitlines()
        except OSError:
            return []

    def _failure(self, told: int) -> str:
        """The uncaught error that the events tell of, after those that were told before; empty without one."""
        with suppress(ValueError, LookupError):
            failed = [json.loads(line) for line in self._events()[told:] if '"event": "failed"' in line]
            return f"{_ranks(failed[-1]['ranks'])} failed: {failed[-1]['error']}"
        return ""

    def _hang(self) -> str:
        """What the report of the hang names first."""
        with suppress(OSError, ValueError, LookupError):
            report = json.loads((self.out / "hang.json").read_text(encoding="utf-8"))
            lost = [f"{_ranks(ranks)} on {host} {OUT_OF_REACH}" for host, ranks in report["unreachable"].items()]
            odd = report["groups"][0]
            return "hung: " + (", ".join(lost) or f"{_ranks(odd['ranks'])} at {odd['where']}")
        return "hung"


def _ranks(ranks: str) -> str:
    return f"rank {ranks}" if ranks.isdecimal() else f"ranks {ranks}"


def _ending(status: int) -> str:
    """What mpiexec's exit status tells: MPICH gives the number of the signal that killed a rank, others add 128."""
    if status < 0:
        return f"mpiexec was killed by {_name(-status)}"
    number = status - 128 if status > 128 else status
    if number in _DEADLY:
        return f"a rank was killed by {_name(number)}"
    return f"mpiexec ended with status {status}" if status else "the ranks left before the end"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _memory() -> str | None:
    """A folder in memory, if there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _say(text: str) -> None:
    print(f"anyrank: {text}", file=sys.stderr, flush=True)
