"""Starting mpiexec, forwarding signals to it, and reading its end."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from anyrank.errors import UsageError
from anyrank.observe.progress import TERMINAL, terminal_width
from anyrank.run.stops import SIGNALS

_PR_SET_PDEATHSIG = 1
#: Open MPI refuses root and more ranks than cores unless told; other MPIs do not read these.
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}


def find_mpiexec() -> str:
    """The mpiexec that belongs to this Python: $ANYRANK_MPIEXEC, the environment's own, or the PATH's.

    Raises UsageError where there is none.
    """
    chosen = os.environ.get("ANYRANK_MPIEXEC")
    beside = Path(sys.executable).parent / "mpiexec"
    found = chosen or (str(beside) if beside.is_file() else shutil.which("mpiexec"))
    if not found or not shutil.which(found):
        raise UsageError(
            f"mpiexec {chosen or ''} is not found: install an MPI (pip install 'anyrank[mpich]'), put its "
            "mpiexec on the PATH, or name it in ANYRANK_MPIEXEC."
        )
    return found


def start(ranks: int, command: Sequence[str]) -> int:
    """Run the command on so many ranks and return mpiexec's exit status; negative where a signal ended it.

    The first SIGTERM, SIGINT, SIGUSR1 or SIGQUIT that this process gets goes to the ranks, which stop with
    a checkpoint; SIGHUP (the terminal is gone) goes as SIGTERM. A second SIGINT kills. mpiexec has a
    session of its own, so that a Ctrl-C at the terminal reaches it once, through us; if we are killed, the
    kernel sends it SIGTERM, so nothing runs on unseen.
    """
    environment = {**OPEN_MPI, **os.environ}
    width = terminal_width()
    if width:
        environment[TERMINAL] = str(width)
    child = subprocess.Popen(
        [find_mpiexec(), "-n", str(ranks), *command],
        stdin=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
        preexec_fn=_die_with_parent(),
    )
    interrupts = 0

    def forward(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        if interrupts > 1:
            print("anyrank: interrupted twice: killed; resume goes on from the last checkpoint", file=sys.stderr)
            child.kill()
        else:
            child.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

    before = {number: signal.signal(number, forward) for number in (*SIGNALS, signal.SIGHUP)}
    try:
        return child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _die_with_parent() -> Callable[[], None]:
    """What the child does before it becomes mpiexec: ask for SIGTERM when its parent dies (Linux)."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "prctl"):
        return lambda: None
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
