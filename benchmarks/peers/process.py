"""The process of a peer: start it, send it requests, and check that it is idle while others are measured."""

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
#: The time limit of one reply, in seconds.
REPLY_LIMIT = 300.0
#: Environment variables for the number of threads of libraries.
THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")
#: Seconds that a process may take to exit after the end of its input.
EXIT_LIMIT = 10.0


class PeerError(Exception):
    """The process of a peer ended, or took too long; the results give the reason."""


class PeerProcess:
    """The process of one peer, as a context manager that ends it.

    `ready` waits until the peer exists, and `ask` sends it a request. Both raise PeerError.
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
        """Return the command of Python, under the mpiexec of the same environment if there are ranks."""
        if self.kind.environment:
            folder = ROOT / self.kind.environment[0] / "bin"
            python, starter = str(folder / "python"), [str(folder / "mpiexec")]
        else:
            python, starter = sys.executable, mpiexec()
        return [*starter, "-n", str(ranks), python] if ranks else [python]

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self.process.stdin and self.process.stdout
        with suppress(OSError, subprocess.TimeoutExpired):
            self.process.stdin.close()
            self.process.wait(EXIT_LIMIT)
        self._kill()
        self.process.wait()
        self.process.stdout.close()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def ready(self) -> dict[str, Any]:
        """Wait for the peer, and return its versions and details."""
        return self._reply()

    def ask(self, line: str) -> dict[str, Any]:
        """Send a line to the peer and return its reply."""
        assert self.process.stdin
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except OSError:
            raise PeerError(self._last_words()) from None
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self.process.stdout
        began, limit = time.monotonic(), threading.Timer(REPLY_LIMIT, self._kill)
        limit.start()
        line = self.process.stdout.readline()
        limit.cancel()
        if not line:
            late = time.monotonic() - began >= REPLY_LIMIT
            raise PeerError(f"it took more than {REPLY_LIMIT:.0f} s" if late else self._last_words())
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _last_words(self) -> str:
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if "Error" in line]
        return (errors or lines or ["it ended without a message"])[-1][:200]


def cpu_seconds(processes: Iterable[PeerProcess]) -> dict[str, float]:
    """Return the CPU seconds that each peer has used so far, including its child processes."""
    parents, used = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        pid = int(path.parent.name)
        parents[pid], used[pid] = int(fields[1]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    roots = {peer.process.pid: peer.name for peer in processes}
    total = dict.fromkeys(roots.values(), 0.0)
    for pid, seconds in used.items():
        ancestor = pid
        while ancestor not in roots and ancestor in parents:
            ancestor = parents[ancestor]
        if ancestor in roots:
            total[roots[ancestor]] += seconds
    return total


class IdleMonitor:
    """The fraction of a core that each peer uses while another peer is measured."""

    def __init__(self, peers_to_watch: Sequence[PeerProcess]):
        self.processes = peers_to_watch
        self._used = {one.name: 0.0 for one in peers_to_watch}
        self._passed = dict(self._used)

    def wait_until_idle(self) -> None:
        """Wait until the peers are idle, since their threads may spin or compile after a turn; at most two seconds."""
        for _ in range(40):
            before = sum(cpu_seconds(self.processes).values())
            time.sleep(0.05)
            if sum(cpu_seconds(self.processes).values()) - before < 0.01:
                return

    @contextmanager
    def measure_others(self, turn: PeerProcess) -> Iterator[None]:
        """Count the CPU seconds of the other peers in the block."""
        began, before = time.perf_counter(), cpu_seconds(self.processes)
        yield
        passed, after = time.perf_counter() - began, cpu_seconds(self.processes)
        for name in self._used:
            if name != turn.name:
                self._used[name] += after[name] - before[name]
                self._passed[name] += passed

    def shares(self) -> dict[str, float]:
        """Return the fraction of a core for each peer, over the time in which others were measured."""
        return {name: round(used / self._passed[name], 4) for name, used in self._used.items() if self._passed[name]}
