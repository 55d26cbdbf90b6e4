"""Watching one process, and having it told where all of them are when one hangs."""

from __future__ import annotations

import ctypes
import faulthandler
import json
import logging
import math
import mmap
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyrank import launcher
from anyrank.runtime.watchdog.hosts import hosts_of, this_host

if TYPE_CHECKING:  # the report's process imports this package, and does without MPI
    from anyrank.world import World

NO_STEP = -1
#: The environment variable that names a file, if there is one, in which rank 0 keeps its step for whoever made it.
STEP_FILE = "ANYRANK_STEP_FILE"


class Watchdog:
    """Watches this process; `seconds` without a `beat` count as a hang, which ends it with status 1; 0 watches nothing.

    What is done between two beats must fit into `seconds`: a step, but also setting the state up, restoring it,
    the last checkpoint, and the report of an error.
    """

    #: `beat(step)`: this rank has got on, it has done so many steps. Bound here because every step calls it.
    beat: Callable[[int], None]

    def __init__(self, seconds: float):
        self.seconds = seconds
        #: How much later than the first rank others may leave their stacks.
        self.grace = min(max(2.0, seconds / 10), 30.0)
        #: Why each rank tells of a hang for itself; empty where it is reported for all together.
        self.lacks = ""
        self._place = ctypes.c_int64()
        self._signal, self._again = 0, 0.0 if seconds else math.inf
        self._open: list[int] = []
        try:
            self._watch: Any = import_module("anyrank.runtime.watchdog.watch")
            self._signal = self._watch.start(seconds, self.grace) if seconds else 0
            self.beat = self._watch.beat
        except (ImportError, OSError) as error:
            self._watch, self.lacks, self.beat = None, str(error), self._beat
        self.beat(NO_STEP)
        told = f"anyrank: rank {launcher.task()} hung: no step for {seconds:g} s; last step ({NO_STEP}: none) "
        self._aim(2, 0.0, told, "")

    def _beat(self, step: int) -> None:
        """Where watch.pyx was not compiled, faulthandler tells of this rank at the terminal, and ends it."""
        self._place.value = step
        now = time.monotonic()
        if now >= self._again:  # about once a second, for it starts a thread
            slack = min(1.0, self.seconds / 8)
            self._again = now + slack
            faulthandler.dump_traceback_later(self.seconds + slack, exit=True, file=2)

    def _aim(self, target: int, delay: float, *texts: str) -> None:
        if self._signal:
            self._watch.aim(target, delay, *map(os.fsencode, texts))
            # Its handler needs no GIL; when it has written the stacks, it calls the handler that was there before.
            faulthandler.register(self._signal, file=target, all_threads=True, chain=True)

    def report_to(self, world: World, folder: Path) -> None:
        """From now on a hang is reported in the run folder, for all ranks together. Collective."""
        token = world.bcast(secrets.token_hex(6))
        hosts = world.bcast(hosts_of(world.gather(this_host()) or []))
        folder = folder.resolve()
        if world.rank == 0:
            for claim in folder.glob(".hang-*"):
                claim.unlink(missing_ok=True)
            self._share_step(os.environ.get(STEP_FILE, ""))
        self.beat(NO_STEP)
        try:
            if self._signal:
                self._report(world.rank, folder, token, hosts)
        except OSError as error:
            self.lacks = str(error)
        if self.lacks and self.seconds:
            log = logging.getLogger(f"anyrank.rank{world.rank}")
            log.warning("a hang is told by each rank for itself, without a report: %s", self.lacks)

    def _share_step(self, file: str) -> None:
        """Keep the step in a file that outlives us, however we die. Who made it has it on a disk of this host."""
        with suppress(OSError, ValueError), Path(file).open("rb+") as shared:
            self._place = ctypes.c_int64.from_buffer(mmap.mmap(shared.fileno(), 8))
            if self._watch:
                self._watch.place(ctypes.addressof(self._place))

    def _report(self, rank: int, folder: Path, token: str, hosts: list[dict[str, Any]]) -> None:
        """Stacks go to this rank's log; a process that has no GIL and no MPI to wait for reads all of them."""
        (mine,) = (host for host in hosts if rank in host["ranks"])
        head, tail = f"anyrank-hang {token}: last step ", f"anyrank-hang {token}: that is all\n"
        claim = str(folder / f".hang-{token}")
        facts = {"folder": str(folder), "seconds": self.seconds, "grace": self.grace, "hosts": hosts}
        facts |= {"host": hosts.index(mine), "head": head, "tail": tail, "claim": claim}
        log = folder / "log" / f"rank-{rank:04d}.log"
        with tempfile.TemporaryFile() as file:
            file.write(json.dumps(facts).encode())
            file.flush()
            memory = os.dup(file.fileno())
        self._open = [memory, os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)]
        # The first rank of a host has it made at once, another one only if that one does not hang.
        delay = 0.0 if rank == mine["ranks"][0] else self.grace + 5
        self._aim(self._open[1], delay, head, tail, sys.executable, f"/proc/{os.getpid()}/fd/{memory}", claim)

    def close(self) -> None:
        """Watch no more."""
        if self._signal:
            faulthandler.unregister(self._signal)
        if self._watch:
            self._watch.stop()
        elif self.seconds:
            faulthandler.cancel_dump_traceback_later()
        for descriptor in self._open:
            os.close(descriptor)
        self._open, self._signal, self._again = [], 0, math.inf


def make_step_file(path: Path) -> None:
    """Make, or empty, a file in which rank 0 keeps its step, if STEP_FILE in its environment names it."""
    path.write_bytes(NO_STEP.to_bytes(8, sys.byteorder, signed=True))


def position(path: Path) -> int | None:
    """The step that rank 0 has reached by its step file, however it died; None where it is not known."""
    with suppress(OSError):
        content = path.read_bytes()
        step = int.from_bytes(content, sys.byteorder, signed=True)
        return step if len(content) == 8 and step >= 0 else None
    return None
