"""Processes that a program starts: what a forked one must not inherit, and how none of them is left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

#: A child that is killed when the thread that made it ends, as prctl(2) has it.
_DEATH_SIGNAL = 1
_libc = ctypes.CDLL(None)
_undone: list[Callable[[], None]] = []
#: The process that has the rank, whether its main thread forks just now, and what signals it had blocked.
_rank, _by_main = os.getpid(), False
_blocked: set[int] = set()


def never_inherit(undo: Callable[[], None]) -> Callable[[], None]:
    """Have every forked child call `undo`, which takes from it what is this process's alone.

    Children of `subprocess`, and of `multiprocessing` by spawn, inherit nothing of it: they are new programs.

    Parameters
    ----------
    undo : callable
        Called in the child, where no other thread is.

    Returns
    -------
    callable
        Ends it: later children do not call `undo`.
    """
    _undone.append(undo)

    def forget() -> None:
        if undo in _undone:
            _undone.remove(undo)

    return forget


def descendants(process: int) -> list[int]:
    """The children of a process, their children, and so on, that live now."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                # The name of the program stands in parentheses, and may hold anything.
                state = (entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
                parents.setdefault(int(state[1]), []).append(int(entry.name))
    found = [process]
    for one in found:
        found += parents.get(one, [])
    return found[1:]


def end_children() -> None:
    """Kill what this process has started, because it is about to end early. Not collective."""
    with suppress(OSError):
        for child in descendants(os.getpid()):
            with suppress(OSError):
                os.kill(child, signal.SIGKILL)


def _before() -> None:
    """What is signalled to the child before it is itself waits until then: our handlers would swallow it."""
    global _rank, _by_main, _blocked
    _rank, _by_main = os.getpid(), threading.current_thread() is threading.main_thread()
    _blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]) if _undone else set()


def _in_parent() -> None:
    if _undone and signal.SIGTERM not in _blocked:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def _in_child() -> None:
    if not _undone:  # no run is under way
        return
    for undo in _undone:
        undo()
    _in_parent()
    _undone.clear()
    # The signal comes when the thread ends that forked, and a thread may end before its children.
    if _by_main and hasattr(_libc, "prctl"):
        _libc.prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != _rank:  # it has ended meanwhile
            os._exit(1)


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
