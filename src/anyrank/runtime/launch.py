"""Start mpiexec, forward signals to it, and interpret its exit status."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from types import FrameType
from typing import Any

from anyrank.errors import UsageError
from anyrank.launcher import STDIN, without_launch
from anyrank.observe.progress import TERMINAL, terminal_width
from anyrank.runtime.children import die_with_parent
from anyrank.runtime.stops import SIGNALS

#: By default Open MPI refuses root and more ranks than cores; other MPIs do not read these variables.
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}
#: Seconds that mpiexec may take to end after a report of a hang: it would wait for an unreachable host for ever.
ENDING = 8.0
#: Seconds in which a host must start `true`, and the number of hosts that are tested at once.
RESPONSE_TIME, AT_ONCE = 10.0, 32
#: Hosts with the maximum number of ranks of each.
Slots = Sequence[tuple[str, int]]


def mpiexec() -> list[str]:
    """Return the mpiexec that belongs to this Python: $ANYRANK_MPIEXEC, that of its environment, or that on the PATH.

    $ANYRANK_MPIEXEC may contain options after the program, quoted as in a shell. Raises UsageError if there is no
    mpiexec.
    """
    configured = os.environ.get("ANYRANK_MPIEXEC", "")
    beside = Path(sys.executable).parent / "mpiexec"
    command = shlex.split(configured) or [str(beside) if beside.is_file() else "mpiexec"]
    if not shutil.which(command[0]):
        raise UsageError(
            f"mpiexec {configured} is not found: install an MPI (pip install 'anyrank[mpich]'), put its "
            "mpiexec on the PATH, or name it in ANYRANK_MPIEXEC."
        )
    return command


@cache
def _flag_of_hosts(program: str) -> str:
    version = subprocess.run(
        [program, "--version"], capture_output=True, check=False, encoding="utf-8", errors="replace"
    ).stdout
    return "--host" if "Open MPI" in version else "-hosts"


def mpiexec_command(hosts: Slots) -> list[str]:
    """Return the beginning of a command line that starts ranks on these hosts, or on hosts that mpiexec chooses."""
    words = mpiexec()
    if not hosts:
        return words
    return [*words, _flag_of_hosts(words[0]), ",".join(f"{host}:{slots}" for host, slots in hosts)]


def popen(command: Sequence[str], extra_environment: Mapping[str, str], **streams: Any) -> subprocess.Popen[bytes]:
    """Start a command in a new session, with additional environment variables; it gets SIGTERM when we die.

    The variables of the MPI launch that started this process are removed, because they would mislead a new mpiexec.
    """
    environment = {**OPEN_MPI, **without_launch(os.environ), **extra_environment}
    width = terminal_width()
    if width:
        environment[TERMINAL] = str(width)
    return subprocess.Popen(
        command,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: die_with_parent(signal.SIGTERM),
        **{"stdin": subprocess.DEVNULL, **streams},
    )


@contextmanager
def _stdin_for(command: Sequence[str], hosts: Slots) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """Offer standard input to rank 0, if a word of the command may name it: yield its environment and its streams.

    mpiexec ends the ranks if rank 0 does not read at once what it passes on. On this host, a thread writes it to a
    named pipe instead, which rank 0 may read.
    """
    names = [name for word in command for name in word.rpartition("=")[2].split(",")]
    if {"-", "/dev/stdin"}.isdisjoint(names):
        yield {}, {}
    elif hosts:
        yield {}, {"stdin": None}
    else:
        with TemporaryDirectory(prefix="anyrank-stdin-") as folder:
            pipe = Path(folder, "stdin")
            os.mkfifo(pipe)
            Thread(target=_copy_stdin, args=(pipe,), daemon=True).start()
            yield {STDIN: str(pipe)}, {}


def _copy_stdin(pipe: Path) -> None:
    """Copy standard input to a named pipe as soon as it is opened for reading."""
    with suppress(OSError), pipe.open("wb", 0) as file:
        while data := os.read(sys.stdin.fileno(), 1 << 16):  # what is there, at once
            file.write(data)


def status_within(
    seconds: float, command: Sequence[str], extra_environment: Mapping[str, str], **streams: Any
) -> int | None:
    """Run a command and return its status; None if it did not end in time and was killed with its ranks."""
    process = popen(command, extra_environment, **streams)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _kill(process)
        process.wait()


def responding_hosts(hosts: Slots, patience: float = RESPONSE_TIME) -> Slots:
    """Return the hosts on which mpiexec can start a process in the same way as ranks; several are tested at once."""

    def answers(host: tuple[str, int]) -> bool:
        command = [*mpiexec_command([(host[0], 1)]), "-n", "1", "true"]
        return status_within(patience, command, {}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [host for host, responds in zip(hosts, pool.map(answers, hosts), strict=True) if responds]


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Kill the child and its process group, if it still runs."""
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def _wait(child: subprocess.Popen[bytes]) -> int:
    """Wait for the end of the child and return its status, and let Python handle signals at least each 50 ms.

    Another thread, such as one of an MPI library, may take a signal from the kernel. That does not interrupt a
    `waitpid` of the main thread, and only the main thread calls Python's handlers. `Popen.wait` with a time limit
    sleeps 50 ms at most.
    """
    while True:
        with suppress(subprocess.TimeoutExpired):
            return child.wait(60)


class Launch:
    """Starts ranks, once or several times; as a context manager, it forwards signals to them.

    The first SIGTERM, SIGINT, SIGUSR1 or SIGQUIT is sent to the ranks, which stop with a checkpoint. SIGHUP (the
    terminal closed) is sent as SIGTERM. A second SIGINT kills. mpiexec runs in its own session, so that Ctrl-C at the
    terminal reaches it only once, through this process. If this process is killed, the kernel sends SIGTERM to mpiexec,
    and nothing keeps running unnoticed. When the file `report` is written, the ranks hang and are about to end. mpiexec
    may then wait for an unreachable host, and is killed if it does not end.
    """

    def __init__(self, report: Path):
        #: The first signal that this process received (0: none), and whether the ranks of the last `run` hung.
        self.stop_signal, self.hung = 0, False
        self._report, self._interrupts = report, 0
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Launch:
        self._former_handlers = {number: signal.signal(number, self._forward) for number in (*SIGNALS, signal.SIGHUP)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._former_handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def run(
        self, ranks: int, command: Sequence[str], hosts: Slots = (), extra_environment: Mapping[str, str] | None = None
    ) -> int:
        """Run the command on `ranks` ranks; return mpiexec's exit status, negative if a signal ended it."""
        before = self._report_time()
        words = [*mpiexec_command(hosts), "-n", str(ranks), *command]
        with _stdin_for(command, hosts) as (environment, streams):
            child = self._child = popen(words, {**(extra_environment or {}), **environment}, **streams)
            if self.stop_signal:
                child.send_signal(self.stop_signal)
            # In a thread, so that a file system that does not respond cannot delay signals.
            Thread(target=self._kill_after_hang, args=(child, before), daemon=True).start()
            status = _wait(child)
        self._child, self.hung = None, self._report_time() not in (0, before)
        return status

    def _kill_after_hang(self, child: subprocess.Popen[bytes], before: int) -> None:
        """Kill the child if it does not end soon after the report of a hang."""
        while self._report_time() in (0, before):
            time.sleep(1.0)
            if child.poll() is not None:
                return
        with suppress(subprocess.TimeoutExpired):
            child.wait(ENDING)
            return
        print("anyrank: mpiexec did not end after the hang and was killed", file=sys.stderr, flush=True)
        _kill(child)

    def wait(self, seconds: float) -> None:
        """Sleep for `seconds`, or until a signal is received."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.stop_signal:
            time.sleep(0.05)

    def _report_time(self) -> int:
        """Return when the report was written (0: never), on the clock of the file system."""
        try:
            return self._report.stat().st_mtime_ns
        except OSError:
            return 0

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        number = signal.SIGTERM if number == signal.SIGHUP else number
        self.stop_signal = self.stop_signal or number
        if self._child is None:
            return
        if self._interrupts > 1:
            print("anyrank: interrupted twice: killed; resume continues from the last checkpoint", file=sys.stderr)
            self._child.kill()
        else:
            self._child.send_signal(number)


def exit_code(status: int, out: Path) -> int:
    """Return our exit code for mpiexec's status. 0 needs a finished run: mpiexec returns 0 also if it killed ranks."""
    if status in (2, 75):
        return status
    if status == 0:
        from anyrank.runtime.folder import RunFolder  # imports h5py, which starting ranks does not need

        return 0 if RunFolder(out).finished() else 1
    return 1
