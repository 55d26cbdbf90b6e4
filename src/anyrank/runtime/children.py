"""Child processes of a program: what a forked child must not inherit, and how all children end with the rank."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType

#: PR_SET_PDEATHSIG of prctl(2): the kernel signals the child when the thread that forked it ends.
_DEATH_SIGNAL = 1
_libc = ctypes.CDLL(None)
_undo_calls: list[Callable[[], None]] = []
#: The process of the rank, whether its main thread is the one that forks, and the signals that were blocked before.
_rank_process, _main_thread_forks = os.getpid(), False
_blocked: set[int] = set()


def never_inherit(undo: Callable[[], None]) -> Callable[[], None]:
    """Let every forked child call `undo`, which releases what only this process may hold.

    Children of `subprocess`, and of `multiprocessing` by spawn, need no `undo`: they are new programs.

    Parameters
    ----------
    undo : callable
        Called in the child, which has no other thread.

    Returns
    -------
    callable
        A function without arguments. After it is called, later children do not call `undo`.
    """
    _undo_calls.append(undo)

    def unregister() -> None:
        if undo in _undo_calls:
            _undo_calls.remove(undo)

    return unregister


def descendants(process: int) -> list[int]:
    """Return the living children of a process, their children, and so on."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                # The name of the program is in parentheses and may contain any character.
                state = (entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
                parents.setdefault(int(state[1]), []).append(int(entry.name))
    processes = [process]
    for pid in processes:  # the list grows while the loop runs
        processes += parents.get(pid, [])
    return processes[1:]


def end_children() -> None:
    """Kill the processes that this process started, before it ends early. Not collective."""
    with suppress(OSError):
        for child in descendants(os.getpid()):
            with suppress(OSError):
                os.kill(child, signal.SIGKILL)


def end_forked_child(process: int, error: BaseException | None, where: str = "") -> None:
    """End this process if it is a forked child of `process`: it must not continue as the rank. Not collective.

    Parameters
    ----------
    process : int
        The process of the rank. Nothing happens in that process.
    error : BaseException or None
        The exception that left the program's code in the child. The status of SystemExit is kept; others give 1.
    where : str
        The method from which a child returned, for a message; empty if there is nothing to say.
    """
    if os.getpid() == process:
        return
    status = 0
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        traceback.print_exception(error)
        status = 1
    if where:
        message = (
            f"anyrank: process {os.getpid()}, a forked child, returned from {where} and was ended. Use os._exit there."
        )
        print(message, file=sys.stderr)
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def die_with_parent(number: int) -> None:
    """Let the kernel send this signal to this process when the thread that forked it ends (Linux)."""
    if hasattr(_libc, "prctl"):
        _libc.prctl(_DEATH_SIGNAL, number, 0, 0, 0)


def _leave_process_group(_: object) -> None:
    """Leave the process group of the rank, because mpiexec and terminals send their signals to the whole group."""
    if _main_thread_forks:  # other children have no death signal, and must be killed with the group
        with suppress(OSError):
            os.setpgid(0, 0)


@cache
def _register_with_multiprocessing(util: ModuleType) -> None:
    util.register_after_fork(sys, _leave_process_group)  # `sys` stands for any object that lives as long as the process


def _before_fork() -> None:
    """Block SIGTERM until the child has its own handlers; the handlers of the rank would swallow it."""
    global _rank_process, _main_thread_forks, _blocked
    _rank_process, _main_thread_forks = os.getpid(), threading.current_thread() is threading.main_thread()
    _blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]) if _undo_calls else set()
    # Only children of multiprocessing leave the group: those of `subprocess` with `preexec_fn` may start a session,
    # which the leader of a process group cannot.
    if _undo_calls and (util := sys.modules.get("multiprocessing.util")):
        _register_with_multiprocessing(util)


def _after_fork_in_parent() -> None:
    if _undo_calls and signal.SIGTERM not in _blocked:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def _after_fork_in_child() -> None:
    if not _undo_calls:  # no run is under way
        return
    for undo in _undo_calls:
        undo()
    _after_fork_in_parent()
    _undo_calls.clear()
    # The kernel sends the signal when the forking thread ends, and a thread may end before its children.
    if _main_thread_forks:
        die_with_parent(signal.SIGKILL)
        if os.getppid() != _rank_process:  # the rank ended in between
            os._exit(1)


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
