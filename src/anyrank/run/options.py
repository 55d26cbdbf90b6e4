"""How a run is carried out: everything that does not change its result."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import pydantic

from anyrank.errors import UsageError
from anyrank.kernel import check_bodies
from anyrank.layout import SPLITS
from anyrank.run.duration import duration

#: Options that hold at resume unless they are given again.
KEPT = (
    *("ranks", "threads", "body", "split", "halo_steps", "transfer", "picture"),
    *("checkpoint_every", "checkpoint_io", "keep", "mtbf", "hang_timeout"),
    "memory_limit",
)
CHECKPOINT_IO = ("pwrite", "mpio", "gather")
BIND = ("auto", "core", "none")
TRANSFERS = ("auto", "direct", "staged")


@dataclass(frozen=True)
class Interval:
    """When checkpoints are due: every so many steps, or seconds, or as Young's formula says, or never."""

    steps: int = 0
    seconds: float = 0.0
    young: bool = False

    @classmethod
    def parse(cls, text: str) -> Interval:
        """From `200` (steps), `10min` (time), `auto` (Young's formula) or `off`; else UsageError."""
        if text == "auto":
            return cls(young=True)
        if text == "off":
            return cls()
        if text.isdecimal():
            if int(text) == 0:
                raise UsageError("--checkpoint-every 0 must be at least 1 step. Use off for none.")
            return cls(steps=int(text))
        try:
            return cls(seconds=duration(text, "--checkpoint-every"))
        except UsageError:
            raise UsageError(f"--checkpoint-every {text!r} must be steps (200), a time (10min), auto or off.") from None


@dataclass(frozen=True)
class Options:
    """The options of a run. Those with a value are kept in the run folder and hold at resume."""

    ranks: int = 1
    threads: int | None = None
    bind: str = "auto"
    body: str = "auto"
    split: str = "auto"
    halo_steps: int = 1
    transfer: str = "auto"
    checkpoint_every: str = "auto"
    checkpoint_io: str = "pwrite"
    keep: int = 2
    mtbf: str = "24h"
    walltime: str = ""
    stop_at: int | None = None
    hang_timeout: str = "30min"
    memory_limit: str = ""
    check: bool = False
    digests: bool = False
    max_restarts: int = 0
    min_ranks: int = 1
    hosts: str = ""
    chaos: str = ""
    i_mean_it: bool = False
    picture: bool = True
    json: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        at_least = {"ranks": 1, "threads": 1, "keep": 1, "stop_at": 0, "max_restarts": 0, "min_ranks": 1}
        at_least |= {"halo_steps": 1}
        for name, least in at_least.items():
            value = getattr(self, name)
            if value is not None and value < least:
                flag = "-n" if name == "ranks" else "--" + name.replace("_", "-")
                raise UsageError(f"{flag} {value} must be at least {least}. Use {flag} {least} or more.")
        _one_of("--bind", self.bind, BIND)
        check_bodies(self.body.split(","))
        _one_of("--transfer", self.transfer, TRANSFERS)
        _one_of("--checkpoint-io", self.checkpoint_io, CHECKPOINT_IO)
        if self.split not in SPLITS and not re.fullmatch(r"\d+(x\d+)*", self.split):
            raise UsageError(f"--split {self.split!r} must be one of {', '.join(SPLITS)}, or a grid such as 2x3.")
        _ = self.interval, self.mtbf_seconds, self.walltime_seconds, self.hang_seconds, self.memory_bytes
        if self.chaos:
            from anyrank.run.chaos import parse  # it takes h5py along, which nobody else needs yet

            parse(self.chaos)

    @property
    def interval(self) -> Interval:
        """When checkpoints are due."""
        return Interval.parse(self.checkpoint_every)

    @property
    def mtbf_seconds(self) -> float:
        """The mean time between failures of the job, for Young's formula."""
        return duration(self.mtbf, "--mtbf")

    @property
    def walltime_seconds(self) -> float | None:
        """The time limit asked for, None without one."""
        return duration(self.walltime, "--walltime") if self.walltime else None

    @property
    def hang_seconds(self) -> float:
        """Seconds without a step after which the run counts as hung; 0 where nobody watches."""
        return 0.0 if self.hang_timeout in ("0", "off") else duration(self.hang_timeout, "--hang-timeout")

    @property
    def memory_bytes(self) -> int | None:
        """What a rank's process may take of memory in all, in bytes; None without a limit."""
        if not self.memory_limit:
            return None
        try:
            return int(pydantic.TypeAdapter(pydantic.ByteSize).validate_python(self.memory_limit))
        except pydantic.ValidationError:
            raise UsageError(
                f"--memory-limit {self.memory_limit!r} is not a size: write it as 512MB, 2GiB or bytes."
            ) from None

    def kept(self) -> dict[str, Any]:
        """What the run folder remembers: all but what belongs to one invocation, and what nobody has asked for."""
        return {k: v for k, v in asdict(self).items() if k in KEPT and v not in (None, "")}


def _one_of(flag: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{flag} {value!r} must be one of {', '.join(allowed)}.")


OPTION_NAMES = tuple(field.name for field in fields(Options))


def option_words(options: Mapping[str, Any]) -> list[str]:
    """Options of a run as words of a command line."""
    words = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            words += [flag, str(value)]
    return words
