"""Watch one process; if it hangs, have the stacks of all ranks reported."""

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

if TYPE_CHECKING:  # the process of the report imports this package without MPI
    from anyrank.world import World

NO_STEP = -1
#: The environment variable with the name of a file in which rank 0 stores its step for the supervisor.
STEP_FILE = "ANYRANK_STEP_FILE"


class Watchdog:
    """Watches this process; after `seconds` without a `beat` it counts as hung and ends with status 1; 0: off.

    Everything between two beats must fit into `seconds`: a step, but also the setup or restore of the state, the last
    checkpoint, and the report of an error.
    """

    #: `beat(step)`: this rank has made progress and has done `step` steps. An attribute, because every step calls it.
    beat: Callable[[int], None]

    def __init__(self, seconds: float):
        self.seconds = seconds
        #: Seconds after the first rank within which the other ranks write their stacks.
        self.grace = min(max(2.0, seconds / 10), 30.0)
        #: Why each rank reports a hang by itself; empty if there is one report for all ranks.
        self.limitation = ""
        self._step = ctypes.c_int64()
        self._signal, self._next_reset = 0, 0.0 if seconds else math.inf
        self._open: list[int] = []
        try:
            self._watch: Any = import_module("anyrank.runtime.watchdog.watch")
            self._signal = self._watch.start(seconds, self.grace) if seconds else 0
            self.beat = self._watch.beat
        except (ImportError, OSError) as error:
            self._watch, self.limitation, self.beat = None, str(error), self._beat
        self.beat(NO_STEP)
        head = f"anyrank: rank {launcher.task()} hung: no step for {seconds:g} s; last step ({NO_STEP}: none) "
        self._set_output(2, 0.0, head, "")

    def _beat(self, step: int) -> None:
        """Replace watch.pyx if it is not compiled: faulthandler prints this rank's stack and ends it."""
        self._step.value = step
        now = time.monotonic()
        if now >= self._next_reset:  # about once a second, because it starts a thread
            slack = min(1.0, self.seconds / 8)
            self._next_reset = now + slack
            faulthandler.dump_traceback_later(self.seconds + slack, exit=True, file=2)

    def _set_output(self, target: int, delay: float, *texts: str) -> None:
        if self._signal:
            self._watch.set_output(target, delay, *map(os.fsencode, texts))
            # faulthandler needs no GIL; after it has written the stacks, it calls the former handler (watch.h).
            faulthandler.register(self._signal, file=target, all_threads=True, chain=True)

    def report_to(self, world: World, folder: Path) -> None:
        """Report a hang once for all ranks, in the run folder, from now on. Collective."""
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
            self.limitation = str(error)
        if self.limitation and self.seconds:
            log = logging.getLogger(f"anyrank.rank{world.rank}")
            log.warning("each rank reports a hang by itself, without a common report: %s", self.limitation)

    def _share_step(self, file: str) -> None:
        """Store the step in a memory-mapped file, which outlives this process. The supervisor reads it on this host."""
        with suppress(OSError, ValueError), Path(file).open("rb+") as shared:
            self._step = ctypes.c_int64.from_buffer(mmap.mmap(shared.fileno(), 8))
            if self._watch:
                self._watch.store_step_at(ctypes.addressof(self._step))

    def _report(self, rank: int, folder: Path, token: str, hosts: list[dict[str, Any]]) -> None:
        """Write stacks to this rank's log; a separate process without GIL and MPI reads the logs of all ranks."""
        (mine,) = (host for host in hosts if rank in host["ranks"])
        head, tail = f"anyrank-hang {token}: last step ", f"anyrank-hang {token}: that is all\n"
        claim = str(folder / f".hang-{token}")
        metadata = {"folder": str(folder), "seconds": self.seconds, "grace": self.grace, "hosts": hosts}
        metadata |= {"host": hosts.index(mine), "head": head, "tail": tail, "claim": claim}
        log = folder / "log" / f"rank-{rank:04d}.log"
        with tempfile.TemporaryFile() as file:
            file.write(json.dumps(metadata).encode())
            file.flush()
            memory = os.dup(file.fileno())
        self._open = [memory, os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)]
        # The first rank of a host starts the report at once; another rank does so only if the first does not hang.
        delay = 0.0 if rank == mine["ranks"][0] else self.grace + 5
        self._set_output(self._open[1], delay, head, tail, sys.executable, f"/proc/{os.getpid()}/fd/{memory}", claim)

    def close(self) -> None:
        """Stop watching."""
        if self._signal:
            faulthandler.unregister(self._signal)
        if self._watch:
            self._watch.stop()
        elif self.seconds:
            faulthandler.cancel_dump_traceback_later()
        for descriptor in self._open:
            os.close(descriptor)
        self._open, self._signal, self._next_reset = [], 0, math.inf


def make_step_file(path: Path) -> None:
    """Create or reset the file in which rank 0 stores its step, if STEP_FILE in its environment names it."""
    path.write_bytes(NO_STEP.to_bytes(8, sys.byteorder, signed=True))


def position(path: Path) -> int | None:
    """Return the step in rank 0's step file, however the rank died; None if it is not known."""
    with suppress(OSError):
        content = path.read_bytes()
        step = int.from_bytes(content, sys.byteorder, signed=True)
        return step if len(content) == 8 and step >= 0 else None
    return None
