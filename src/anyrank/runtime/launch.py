"""Starting mpiexec, forwarding signals to it, and reading its end."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any

from anyrank.errors import UsageError
from anyrank.launcher import without_launch
from anyrank.observe.progress import TERMINAL, terminal_width
from anyrank.runtime.stops import SIGNALS

_PR_SET_PDEATHSIG = 1
#: Open MPI refuses root and more ranks than cores unless told; other MPIs do not read these.
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}
#: Seconds that mpiexec may take to end after a report of a hang: it waits for ever for a host that is cut off.
ENDING = 8.0
#: Seconds in which a host must start `true`, and how many hosts are asked at once.
ANSWERING, AT_ONCE = 10.0, 32
#: Hosts with the number of ranks that each may have.
Slots = Sequence[tuple[str, int]]


def mpiexec() -> list[str]:
    """The mpiexec that belongs to this Python: $ANYRANK_MPIEXEC, the environment's own, or the PATH's.

    $ANYRANK_MPIEXEC may hold options after the program, quoted as for a shell. Raises UsageError where
    there is none.
    """
    chosen = os.environ.get("ANYRANK_MPIEXEC", "")
    beside = Path(sys.executable).parent / "mpiexec"
    found = shlex.split(chosen) or [str(beside) if beside.is_file() else "mpiexec"]
    if not shutil.which(found[0]):
        raise UsageError(
            f"mpiexec {chosen} is not found: install an MPI (pip install 'anyrank[mpich]'), put its "
            "mpiexec on the PATH, or name it in ANYRANK_MPIEXEC."
        )
    return found


@cache
def _flag_of_hosts(program: str) -> str:
    version = subprocess.run(
        [program, "--version"], capture_output=True, check=False, encoding="utf-8", errors="replace"
    ).stdout
    return "--host" if "Open MPI" in version else "-hosts"


def starting(hosts: Slots) -> list[str]:
    """The first words of a command line that starts ranks on these hosts, or where mpiexec sees fit."""
    words = mpiexec()
    if not hosts:
        return words
    return [*words, _flag_of_hosts(words[0]), ",".join(f"{host}:{slots}" for host, slots in hosts)]


def popen(command: Sequence[str], more: Mapping[str, str], **streams: Any) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, with more in its environment; it gets SIGTERM when we die.

    It finds nothing of the launch that this process may be of, which would keep its own ranks from each other.
    """
    environment = {**OPEN_MPI, **without_launch(os.environ), **more}
    width = terminal_width()
    if width:
        environment[TERMINAL] = str(width)
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
        preexec_fn=_die_with_parent(),
        **streams,
    )


def status_within(seconds: float, command: Sequence[str], more: Mapping[str, str], **streams: Any) -> int | None:
    """The status with which a command ends; None where it was not over after so long, and was killed with its ranks."""
    process = popen(command, more, **streams)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _kill(process)
        process.wait()


def answering(hosts: Slots, patience: float = ANSWERING) -> Slots:
    """The hosts on which mpiexec can start a process, in the way in which ranks start; a few are asked at once."""

    def answers(host: tuple[str, int]) -> bool:
        command = [*starting([(host[0], 1)]), "-n", "1", "true"]
        return status_within(patience, command, {}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [host for host, there in zip(hosts, pool.map(answers, hosts), strict=True) if there]


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Kill it, if it is there, with what lives in its session's first group."""
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


class Launch:
    """Starts ranks, once or again, and while it is entered hands them the signals that this process gets.

    The first SIGTERM, SIGINT, SIGUSR1 or SIGQUIT goes to the ranks, which stop with a checkpoint; SIGHUP
    (the terminal is gone) goes as SIGTERM. A second SIGINT kills. mpiexec has a session of its own, so that
    a Ctrl-C at the terminal reaches it once, through us; if we are killed, the kernel sends it SIGTERM, so
    nothing runs on unseen. If `report` is written, the ranks hang and are about to end; mpiexec, which may
    wait for a host that is cut off, is then killed where it does not.
    """

    def __init__(self, report: Path):
        #: The first signal that came, 0 without one; and whether the ranks of the last `run` hung.
        self.asked, self.hung = 0, False
        self._report, self._interrupts = report, 0
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Launch:
        self._before = {number: signal.signal(number, self._forward) for number in (*SIGNALS, signal.SIGHUP)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def run(self, ranks: int, command: Sequence[str], hosts: Slots = (), more: Mapping[str, str] | None = None) -> int:
        """Run the command on so many ranks; mpiexec's exit status, negative where a signal ended it."""
        before = self._reported()
        child = self._child = popen([*starting(hosts), "-n", str(ranks), *command], more or {})
        if self.asked:
            child.send_signal(self.asked)
        # In a thread, so that a file system that does not answer holds up no signal.
        Thread(target=self._mind, args=(child, before), daemon=True).start()
        status = child.wait()
        self._child, self.hung = None, self._reported() not in (0, before)
        return status

    def _mind(self, child: subprocess.Popen[bytes], before: int) -> None:
        """End the child if it is still there some time after the report of a hang."""
        while self._reported() in (0, before):
            time.sleep(1.0)
            if child.poll() is not None:
                return
        with suppress(subprocess.TimeoutExpired):
            child.wait(ENDING)
            return
        print("anyrank: mpiexec does not end after the hang: killed", file=sys.stderr, flush=True)
        _kill(child)

    def wait(self, seconds: float) -> None:
        """Let so much time pass, or less if a signal comes."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.asked:
            time.sleep(0.05)

    def _reported(self) -> int:
        """When the report was written; on a clock that need not be ours."""
        try:
            return self._report.stat().st_mtime_ns
        except OSError:
            return 0

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        number = signal.SIGTERM if number == signal.SIGHUP else number
        self.asked = self.asked or number
        if self._child is None:
            return
        if self._interrupts > 1:
            print("anyrank: interrupted twice: killed; resume goes on from the last checkpoint", file=sys.stderr)
            self._child.kill()
        else:
            self._child.send_signal(number)


def meaning(status: int, out: Path) -> int:
    """Our exit code for mpiexec's: it says 0 of ranks that it killed itself, so 0 needs a finished run."""
    if status in (2, 75):
        return status
    if status == 0:
        from anyrank.runtime.folder import RunFolder  # it takes h5py along, which starting ranks does not need

        return 0 if RunFolder(out).finished() else 1
    return 1


def _die_with_parent() -> Callable[[], None]:
    """What the child does before it becomes mpiexec: ask for SIGTERM when its parent dies (Linux)."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "prctl"):
        return lambda: None
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
