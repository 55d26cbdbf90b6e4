"""A peer at work: its process, what it is told, and whether it is idle while others are measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from anyrank.runtime.launch import OPEN_MPI, mpiexec
from peer import HERE, Peer

ROOT = HERE.parent.parent
#: Seconds that one answer may take.
PATIENCE = 300.0
#: What tells libraries how many threads to start.
THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")
#: Seconds that a process may take to end when its input has.
ENDING = 10.0


class Failed(Exception):  # noqa: N818  (an outcome that the results tell, not ours to mend)
    """A peer's process ended, or took too long; why."""


class Contestant:
    """The process of one peer, from the start until it has nothing more to do; a context manager.

    `ready` waits until it is made, `ask` has it do something. Both raise Failed.
    """

    def __init__(self, name: str, kind: type[Peer], size: dict[str, int], cores: int, folder: Path):
        self.name, self.kind, self.folder = name, kind, folder / name
        self.folder.mkdir()
        self.log = folder / f"{name}.log"
        ranks = kind.ranks and cores > 1
        words = [*self._launcher(cores if ranks else 0), str(HERE / "worker.py"), name, json.dumps(size), str(cores)]
        threads = dict.fromkeys(THREADS, "1" if ranks else str(cores))
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*words, str(self.folder), *(["--ranks"] if ranks else [])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                env={**os.environ, **OPEN_MPI, **threads, **kind.variables},
            )

    def _launcher(self, ranks: int) -> list[str]:
        """Return the command of Python, under the mpiexec that belongs to it."""
        if self.kind.environment:
            folder = ROOT / self.kind.environment[0] / "bin"
            python, starter = str(folder / "python"), [str(folder / "mpiexec")]
        else:
            python, starter = sys.executable, mpiexec()
        return [*starter, "-n", str(ranks), python] if ranks else [python]

    def __enter__(self) -> Contestant:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self.process.stdin and self.process.stdout
        with suppress(OSError, subprocess.TimeoutExpired):
            self.process.stdin.close()
            self.process.wait(ENDING)
        self._kill()
        self.process.wait()
        self.process.stdout.close()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def ready(self) -> dict[str, Any]:
        """Return versions and details, when it is made."""
        return self._reply()

    def ask(self, line: str) -> dict[str, Any]:
        """Have it do what the line says; its reply."""
        assert self.process.stdin
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except OSError:
            raise Failed(self._last_words()) from None
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self.process.stdout
        began, limit = time.monotonic(), threading.Timer(PATIENCE, self._kill)
        limit.start()
        line = self.process.stdout.readline()
        limit.cancel()
        if not line:
            late = time.monotonic() - began >= PATIENCE
            raise Failed(f"it took more than {PATIENCE:.0f} s" if late else self._last_words())
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _last_words(self) -> str:
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if "Error" in line]
        return (errors or lines or ["it ended without a word"])[-1][:200]


def cpu_seconds(contestants: Iterable[Contestant]) -> dict[str, float]:
    """Return what the processes of each contestant, and those that they started, have used so far."""
    parents, used = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        pid = int(path.parent.name)
        parents[pid], used[pid] = int(fields[1]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    roots = {contestant.process.pid: contestant.name for contestant in contestants}
    total = dict.fromkeys(roots.values(), 0.0)
    for pid, seconds in used.items():
        ancestor = pid
        while ancestor not in roots and ancestor in parents:
            ancestor = parents[ancestor]
        if ancestor in roots:
            total[roots[ancestor]] += seconds
    return total


class Watch:
    """Which share of a core contestants use while another one is measured."""

    def __init__(self, everyone: Sequence[Contestant]):
        self.everyone = everyone
        self._used = {one.name: 0.0 for one in everyone}
        self._passed = dict(self._used)

    def settle(self) -> None:
        """Wait while threads of the last turn still look for work, or compile; two seconds at most."""
        for _ in range(40):
            before = sum(cpu_seconds(self.everyone).values())
            time.sleep(0.05)
            if sum(cpu_seconds(self.everyone).values()) - before < 0.01:
                return

    @contextmanager
    def beside(self, turn: Contestant) -> Iterator[None]:
        """Count what the others use meanwhile."""
        began, before = time.perf_counter(), cpu_seconds(self.everyone)
        yield
        passed, after = time.perf_counter() - began, cpu_seconds(self.everyone)
        for name in self._used:
            if name != turn.name:
                self._used[name] += after[name] - before[name]
                self._passed[name] += passed

    def shares(self) -> dict[str, float]:
        """Return, by contestant, what it used while others were measured."""
        return {name: round(used / self._passed[name], 4) for name, used in self._used.items() if self._passed[name]}
