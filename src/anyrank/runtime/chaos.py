"""Chaos: fault injection, which tests that a run survives failures.

    kill rank=2 step=100; slow rank=1 factor=5; signal TERM after=3s

A fault is injected once per run folder, over all restarts, unless it has the word `repeat`. Before it is injected, it
is recorded in chaos.jsonl, and the record is on disk.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NoReturn

from anyrank.errors import UsageError
from anyrank.observe.events import Events
from anyrank.runtime.callback import Callback
from anyrank.runtime.duration import duration
from anyrank.runtime.stops import SIGNALS
from anyrank.state import State
from anyrank.storage.checkpoints import Checkpoints
from anyrank.storage.durable import sync
from anyrank.storage.write import Saved
from anyrank.world import World

#: The syntax of each kind of fault: required keys, optional keys, and an example.
RULES = {
    "kill": ({"rank", "step"}, set(), "kill rank=2 step=100"),
    "kill mpiexec": ({"step"}, set(), "kill mpiexec step=100"),
    "slow": ({"rank", "factor"}, {"from", "to"}, "slow rank=1 factor=5 from=10 to=20"),
    "hang": ({"rank", "step"}, set(), "hang rank=0 step=50"),
    "raise": ({"rank", "step"}, set(), "raise rank=1 step=10"),
    "torn-checkpoint": (set(), {"step"}, "torn-checkpoint step=100"),
    "flip-bit": (set(), {"step"}, "flip-bit step=100"),
    "disk-full": ({"step"}, {"for"}, "disk-full step=100 for=2"),
    **{
        f"signal {number.name[3:]}": (set(), {"after", "step", "rank"}, "signal TERM after=3s, or signal USR1 step=9")
        for number in SIGNALS
    },
}
_DAMAGES = ("torn-checkpoint", "flip-bit")
_MPIEXECS = ("mpiexec", "mpiexec.hydra", "mpirun", "orterun", "prterun", "prte")


_INTEGER = (r"\d+", "a whole number")
_VALUES = {
    **dict.fromkeys(("rank", "step", "from", "to"), _INTEGER),
    "for": (r"[1-9]\d*", "a whole number of at least 1"),
    "factor": (r"[1-9]\d*(\.\d*)?", "a number of at least 1"),
    "after": (r"\S+", "a duration"),
}


@dataclass(frozen=True)
class Fault:
    """One fault: its normalized text, its kind, its values, and whether every restart injects it again."""

    text: str
    kind: str
    values: Mapping[str, float]
    repeat: bool

    @property
    def rank(self) -> int:
        """The rank on which it is injected."""
        return int(self.values.get("rank", 0))

    @property
    def step(self) -> int:
        """The step at which it is injected; for damage to checkpoints, the earliest step."""
        return int(self.values.get("step", 0))

    def due(self, step: int, seconds: float) -> bool:
        """Return whether to inject it before this step, `seconds` after the start."""
        return seconds >= self.values["after"] if "after" in self.values else step == self.step

    def slowness(self, step: int) -> float:
        """Return the factor by which the step takes longer."""
        first, last = self.values.get("from", 0), self.values.get("to", math.inf)
        return self.values["factor"] if first <= step <= last else 1.0

    def offset_below(self, size: int) -> int:
        """Return a number below `size` that depends only on the text."""
        return int.from_bytes(blake2b(self.text.encode(), digest_size=16).digest(), "big") % size


def parse(text: str) -> list[Fault]:
    """Parse faults from text; UsageError, with the fault, the rule and an example, if that fails."""
    faults = [_fault(part.split()) for part in text.split(";") if part.strip()]
    if not faults:
        raise UsageError(f"--chaos {text!r} contains no fault. Write it as: {RULES['kill'][-1]}.")
    return faults


def _fault(words: list[str]) -> Fault:
    text = " ".join(words)
    kind = " ".join(word for word in words if "=" not in word and word != "repeat")
    if kind not in RULES:
        rule = f"must be one of {', '.join(RULES)}"
        raise UsageError(f"--chaos {text!r}: {kind!r} {rule}. Write it as: {RULES['kill'][-1]}.")
    needed, allowed, example = RULES[kind]
    values: dict[str, float] = {}
    try:
        for key, _, value in (word.partition("=") for word in words if "=" in word):
            if key not in needed | allowed:
                raise ValueError(f"{key} is not a key of this fault")
            if key in values:
                raise ValueError(f"{key} is given twice")
            pattern, rule = _VALUES[key]
            if not re.fullmatch(pattern, value):
                raise ValueError(f"{key}={value} must be {rule}")
            values[key] = duration(value, key) if key == "after" else float(value)
        if missing := needed - set(values):
            raise ValueError(f"{' and '.join(sorted(missing))} must be given")
        if kind.startswith("signal") and ("after" in values) == ("step" in values):
            raise ValueError("either after or step must be given")
    except (ValueError, UsageError) as error:
        raise UsageError(f"--chaos {text!r}: {error}. Write it as: {example}.") from None
    return Fault(text, kind, values, "repeat" in words)


def for_ranks(text: str, ranks: int) -> str:
    """Return the text without the faults of ranks that a run on `ranks` ranks does not have."""
    return "; ".join(fault.text for fault in parse(text) if fault.rank < ranks)


class Chaos(Callback):
    """Injects faults, and records each in the run folder before it is injected.

    `faults` come from `agree_on_faults`: they are the same on all ranks. Raises UsageError, perhaps on some ranks only,
    for a fault that cannot be injected here.
    """

    def __init__(self, faults: list[Fault], world: World, folder: Path, checkpoints: Checkpoints):
        self._rank, self._folder = world.rank, folder
        self._start = self._step_start = time.monotonic()
        self._slowness, self._refused_writes = 1.0, 0
        self._faults = [*faults]
        for fault in self._faults:
            if fault.rank >= world.size:
                raise UsageError(
                    f"--chaos {fault.text!r}: there is no rank {fault.rank}; the ranks are 0 to {world.size - 1}. "
                    "Name one of these, or use more ranks."
                )
            if fault.kind == "kill mpiexec" and world.rank == 0:
                _mpiexec()
        checkpoints.fault = self._disk_error

    def before_step(self, state: State) -> None:
        """Inject the faults of this rank that are due."""
        seconds = time.monotonic() - self._start
        for fault in self._faults_of("kill", "hang", "raise", "signal"):
            if fault.rank == self._rank and fault.due(state.step, seconds):
                self._record_once(fault, state.step)
                _inject(fault)
        slow = (fault.slowness(state.step) for fault in self._faults_of("slow") if fault.rank == self._rank)
        self._slowness, self._step_start = math.prod(slow), time.monotonic()

    def after_step(self, state: State) -> None:
        """Sleep, if a fault makes the step slow."""
        if self._slowness > 1:
            time.sleep((self._slowness - 1) * (time.monotonic() - self._step_start))

    def on_checkpoint(self, saved: Saved) -> None:
        """Damage a checkpoint that is on disk, if a fault says so."""
        for fault in self._faults_of(*_DAMAGES) if self._rank == 0 and not saved.error else ():
            if saved.step >= fault.step:
                self._record_once(fault, saved.step)
                _damage(saved.path, fault)

    def _disk_error(self, step: int) -> OSError | None:
        """Return the error of a full disk for the checkpoint of a step; None if no fault asks for it."""
        for fault in self._faults_of("disk-full"):
            if step >= fault.step:
                if self._refused_writes == 0 and self._rank == 0:
                    self._record(fault, step)
                self._refused_writes += 1
                if self._refused_writes == fault.values.get("for"):
                    self._faults.remove(fault)
                    self._refused_writes = 0
                return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return None

    def _faults_of(self, *kinds: str) -> list[Fault]:
        return [fault for fault in self._faults if fault.kind.split()[0] in kinds]

    def _record_once(self, fault: Fault, step: int) -> None:
        """Record the fault, so that this process and this run folder inject it only once."""
        self._faults.remove(fault)
        self._record(fault, step)

    def _record(self, fault: Fault, step: int) -> None:
        record = {"fault": fault.text, "rank": self._rank, "step": step}
        with (self._folder / "chaos.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            sync(file.fileno())
        events = Events(self._folder / "events.jsonl")
        events.say("chaos", **record)
        events.close()


def agree_on_faults(world: World, text: str, folder: Path) -> list[Fault]:
    """Return the faults of a text that are not recorded in this folder, as rank 0 reads it. Collective.

    Another host may see the record later. Ranks that disagree about a full disk would make different collective calls.
    """
    return world.on_root(lambda: [*pending_faults(text, folder)])


def pending_faults(text: str, folder: Path) -> Iterator[Fault]:
    """Yield the faults of a text that are not recorded in this folder, or are to be repeated."""
    injected: Counter[str] = Counter()
    with suppress(FileNotFoundError):
        notes = (folder / "chaos.jsonl").read_text(encoding="utf-8")
        injected.update(json.loads(line)["fault"] for line in notes.splitlines())
    for fault in parse(text):
        if injected[fault.text] and not fault.repeat:
            injected[fault.text] -= 1
        else:
            yield fault


def _inject(fault: Fault) -> None:
    if fault.kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.kind == "kill mpiexec":
        os.kill(_mpiexec(), signal.SIGKILL)
    elif fault.kind == "hang":
        _hang()
    elif fault.kind == "raise":
        raise RuntimeError(f"chaos: {fault.text}")
    else:
        os.kill(os.getpid(), signal.Signals[f"SIG{fault.kind.split()[1]}"])


def _hang() -> NoReturn:
    while True:
        time.sleep(0.1)


def _mpiexec() -> int:
    """Return the process id of the nearest mpiexec among the ancestors of this process; UsageError if there is none."""
    pid = os.getppid()
    while pid > 1:
        name, _, rest = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").partition("(")[2].rpartition(")")
        )
        if name in _MPIEXECS:
            return pid
        pid = int(rest.split()[1])
    raise UsageError("--chaos 'kill mpiexec': mpiexec did not start rank 0 on its host. Use -n 2 or more.")


def _damage(path: Path, fault: Fault) -> None:
    """Truncate the file, or flip one of its bits, at an offset that depends on the fault's text."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        if fault.kind == "torn-checkpoint":
            file.truncate(fault.offset_below(size))
        else:
            offset, bit = divmod(fault.offset_below(8 * size), 8)
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 1 << bit]))
        file.flush()
        sync(file.fileno())
