"""Chaos: faults that a run is told to meet, so that what should survive them can be shown to.

    kill rank=2 step=100; slow rank=1 factor=5; signal TERM after=3s

A fault happens once per run folder, over all restarts, unless the word `repeat` stands with it: it is noted
in chaos.jsonl, and on disk, before it happens.
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

#: How a kind of fault is written: the keys it needs, those it may have, and an example.
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


_WHOLE = (r"\d+", "a whole number")
_VALUES = {
    **dict.fromkeys(("rank", "step", "from", "to"), _WHOLE),
    "for": (r"[1-9]\d*", "a whole number of at least 1"),
    "factor": (r"[1-9]\d*(\.\d*)?", "a number of at least 1"),
    "after": (r"\S+", "a duration"),
}


@dataclass(frozen=True)
class Fault:
    """One fault: its text in one spelling, its kind, its values, and whether it happens again at every restart."""

    text: str
    kind: str
    values: Mapping[str, float]
    repeat: bool

    @property
    def rank(self) -> int:
        """The rank that it happens on."""
        return int(self.values.get("rank", 0))

    @property
    def step(self) -> int:
        """The step that it waits for: for what befalls checkpoints, the first one."""
        return int(self.values.get("step", 0))

    def due(self, step: int, seconds: float) -> bool:
        """Whether it happens before this step, so many seconds after the start."""
        return seconds >= self.values["after"] if "after" in self.values else step == self.step

    def slowness(self, step: int) -> float:
        """How many times as long the step takes."""
        first, last = self.values.get("from", 0), self.values.get("to", math.inf)
        return self.values["factor"] if first <= step <= last else 1.0

    def place(self, size: int) -> int:
        """A number below `size` that the text decides."""
        return int.from_bytes(blake2b(self.text.encode(), digest_size=16).digest(), "big") % size


def parse(text: str) -> list[Fault]:
    """The faults that the text tells; UsageError, with the fault, the rule and an example, where it does not parse."""
    faults = [_fault(part.split()) for part in text.split(";") if part.strip()]
    if not faults:
        raise UsageError(f"--chaos {text!r} tells no fault. Write it as: {RULES['kill'][-1]}.")
    return faults


def _fault(words: list[str]) -> Fault:
    text = " ".join(words)
    kind = " ".join(word for word in words if "=" not in word and word != "repeat")
    if kind not in RULES:
        raise UsageError(f"--chaos {text!r}: {kind!r} is none of {', '.join(RULES)}. Write it as: {RULES['kill'][-1]}.")
    needed, allowed, example = RULES[kind]
    values: dict[str, float] = {}
    try:
        for key, _, value in (word.partition("=") for word in words if "=" in word):
            if key not in needed | allowed:
                raise ValueError(f"it has no {key}")
            if key in values:
                raise ValueError(f"{key} stands there twice")
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
    """The text without the faults of ranks that a run on so many ranks does not have."""
    return "; ".join(fault.text for fault in parse(text) if fault.rank < ranks)


class Chaos(Callback):
    """Makes the faults of the text happen, each noted in the run folder just before.

    `faults` are those of `to_come`, the same on all ranks. Raises UsageError, perhaps on some ranks only, for a fault
    that cannot happen here.
    """

    def __init__(self, faults: list[Fault], world: World, folder: Path, checkpoints: Checkpoints):
        self._rank, self._folder = world.rank, folder
        self._start = self._began = time.monotonic()
        self._slowness, self._full = 1.0, 0
        self._faults = [*faults]
        for fault in self._faults:
            if fault.rank >= world.size:
                raise UsageError(
                    f"--chaos {fault.text!r}: there is no rank {fault.rank}; the ranks are 0 to {world.size - 1}. "
                    "Name one of these, or use more ranks."
                )
            if fault.kind == "kill mpiexec" and world.rank == 0:
                _mpiexec()
        checkpoints.fault = self._disk

    def before_step(self, state: State) -> None:
        """What happens to this rank."""
        seconds = time.monotonic() - self._start
        for fault in self._of("kill", "hang", "raise", "signal"):
            if fault.rank == self._rank and fault.due(state.step, seconds):
                self._happens(fault, state.step)
                _befall(fault)
        slow = (fault.slowness(state.step) for fault in self._of("slow") if fault.rank == self._rank)
        self._slowness, self._began = math.prod(slow), time.monotonic()

    def after_step(self, state: State) -> None:
        """What makes a step slow."""
        if self._slowness > 1:
            time.sleep((self._slowness - 1) * (time.monotonic() - self._began))

    def on_checkpoint(self, saved: Saved) -> None:
        """What damages a checkpoint that is on disk."""
        for fault in self._of(*_DAMAGES) if self._rank == 0 and not saved.error else ():
            if saved.step >= fault.step:
                self._happens(fault, saved.step)
                _damage(saved.path, fault)

    def _disk(self, step: int) -> OSError | None:
        """What the disk says to the checkpoint of a step."""
        for fault in self._of("disk-full"):
            if step >= fault.step:
                if self._full == 0 and self._rank == 0:
                    self._note(fault, step)
                self._full += 1
                if self._full == fault.values.get("for"):
                    self._faults.remove(fault)
                    self._full = 0
                return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return None

    def _of(self, *kinds: str) -> list[Fault]:
        return [fault for fault in self._faults if fault.kind.split()[0] in kinds]

    def _happens(self, fault: Fault, step: int) -> None:
        """Once in this process, and as its note says, once in this folder."""
        self._faults.remove(fault)
        self._note(fault, step)

    def _note(self, fault: Fault, step: int) -> None:
        told = {"fault": fault.text, "rank": self._rank, "step": step}
        with (self._folder / "chaos.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")
            file.flush()
            sync(file.fileno())
        events = Events(self._folder / "events.jsonl")
        events.say("chaos", **told)
        events.close()


def to_come(world: World, text: str, folder: Path) -> list[Fault]:
    """The faults of a text that have not happened in this folder, as rank 0 sees it: another host may see it later, and
    a full disk, which all ranks meet together, would be met by some. Collective."""
    return world.on_root(lambda: [*still_to_come(text, folder)])


def still_to_come(text: str, folder: Path) -> Iterator[Fault]:
    """The faults of a text that have not happened in this folder, or happen again."""
    over: Counter[str] = Counter()
    with suppress(FileNotFoundError):
        notes = (folder / "chaos.jsonl").read_text(encoding="utf-8")
        over.update(json.loads(line)["fault"] for line in notes.splitlines())
    for fault in parse(text):
        if over[fault.text] and not fault.repeat:
            over[fault.text] -= 1
        else:
            yield fault


def _befall(fault: Fault) -> None:
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
    """The process id of the nearest mpiexec that this process descends from; UsageError where there is none."""
    pid = os.getppid()
    while pid > 1:
        name, _, rest = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").partition("(")[2].rpartition(")")
        )
        if name in _MPIEXECS:
            return pid
        pid = int(rest.split()[1])
    raise UsageError("--chaos 'kill mpiexec': no mpiexec has started rank 0 on its host. Use -n 2 or more.")


def _damage(path: Path, fault: Fault) -> None:
    """Cut the file, or flip one of its bits, where the fault's text says."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        if fault.kind == "torn-checkpoint":
            file.truncate(fault.place(size))
        else:
            at, bit = divmod(fault.place(8 * size), 8)
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1 << bit]))
        file.flush()
        sync(file.fileno())
