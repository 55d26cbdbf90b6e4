"""A rank of a case: `anyrank` with a fixed environment, except for the one property that the case changes.

These are fixed: the clock that programs read, the content of new memory, the order of file names, the hash seed, and
random numbers that a program does not seed. Each has a second value, for the case that changes it.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import random
import runpy
import struct
import sys
import sysconfig
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

import anyrank
from anyrank.launcher import task
from anyrank.recorder import is_program
from anyrank.runtime.callback import Callback
from anyrank.runtime.session import EXTRA_CALLBACKS
from anyrank.state import State
from anyrank.verify.case import VARIABLE
from anyrank.verify.regions import cut_regions

#: The start of the fixed clock in ns, and its increment at each call; the second pair is for the case "clock". They
#: are whole seconds and multiples of 2^−9 s, so that differences of floats do not depend on the time since the start.
CLOCKS = ((1_700_000_000 * 10**9, 1_953_125), (1_800_000_000 * 10**9, 9_765_625))
#: The bytes that fill new memory in the case "memory", by rank: as float64 and float32 a large number, a number between
#: 0 and 1, and 0, which is also False. A comparison may hide one of them. In other cases -3.7e-103, or -3.0e-13.
FILLS = (0x55, 0x3F, 0)
#: In the case "timing": the number of steps that are delayed, and the delay in seconds; the ranks take turns.
DELAYED_STEPS, DELAY = 200, 0.005


def pin(changed: str) -> None:
    """Fix the environment of this process, except for the property that the case changes."""
    _pin_clock(*CLOCKS[changed == "clock"])
    _pin_files(changed == "file order")
    _pin_memory()
    if changed == "memory":
        _fill_memory(FILLS[task() % len(FILLS)])
    seed = 2 if changed == "chance" else 1
    random.seed(seed)
    np.random.seed(seed)
    # NumPy's generators take their entropy from this function if they get no seed.
    np.random.bit_generator.randbits = random.Random(seed).getrandbits  # type: ignore[attr-defined]
    if changed == "timing":
        EXTRA_CALLBACKS.append(_Delay())
    if changed == "parts":
        cut_regions()


def _pin_clock(start: int, tick: int) -> None:
    """Give programs, and only programs, a clock that advances by one increment at each call."""
    calls = itertools.count()

    def now() -> int:
        return start + tick * next(calls)

    def replacement(real: Callable[[], Any], read: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: read() if _of_a_program(sys._getframe(1).f_code.co_filename) else real()

    for name in ("time", "monotonic", "perf_counter", "process_time", "thread_time"):
        setattr(time, name, replacement(getattr(time, name), lambda: now() / 1e9))
        setattr(time, f"{name}_ns", replacement(getattr(time, f"{name}_ns"), now))
    MPI.Wtime = replacement(MPI.Wtime, lambda: now() / 1e9)


@cache
def _of_a_program(file: str) -> bool:
    """Return whether the file is a program or a module of the user, not of Python, anyrank or an installed package."""
    ours = Path(anyrank.__file__).parent
    if Path(file).is_relative_to(ours):
        return is_program(file)
    libraries = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return not file.startswith(("<", *libraries))


def _pin_files(backwards: bool) -> None:
    """List file names in alphabetical order, or in reverse."""
    listdir, scandir = os.listdir, os.scandir

    class Scandir(list[Any]):
        """The result of os.scandir, read at once and sorted."""

        def __init__(self, path: Any = "."):
            with scandir(path) as entries:
                super().__init__(sorted(entries, key=lambda entry: entry.name, reverse=not backwards))

        def __next__(self) -> Any:
            if not self:
                raise StopIteration
            return self.pop()

        def __iter__(self) -> Any:
            return self

        __enter__ = __iter__

        def __exit__(self, *error: object) -> None:
            self.clear()

        close = list.clear

    os.listdir = lambda path=".": sorted(listdir(path), reverse=backwards)  # type: ignore[assignment]
    os.scandir = Scandir  # type: ignore[assignment,misc]
    # pathlib in Python 3.10 and glob in 3.13 hold references to the original functions.
    for module, name in (("pathlib", "_NormalAccessor"), ("glob", "_StringGlobber")):
        holder = getattr(sys.modules.get(module), name, None)
        for function in {"listdir", "scandir"} & vars(holder).keys() if holder else ():
            setattr(holder, function, staticmethod(getattr(os, function)))


def _pin_memory() -> None:
    """Let NumPy use malloc, which fills new memory, for small arrays, too; by default it reuses freed ones."""
    core = sys.modules.get("numpy._core") or sys.modules["numpy.core"]
    pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", _PYTHON))
    capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
        ("PyCapsule_New", _PYTHON)
    )
    api = ctypes.cast(pointer(core._multiarray_umath._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
    set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(api[304])
    get_handler = ctypes.PYFUNCTYPE(ctypes.py_object)(api[305])
    # A PyDataMem_Handler (NEP 49): 128 bytes of name and version, then context, malloc, calloc, realloc, free.
    # NumPy calls malloc(context, bytes) with the context NULL, and realloc(NULL, bytes) is the same as malloc(bytes).
    handler = ctypes.create_string_buffer(ctypes.string_at(pointer(get_handler(), b"mem_handler"), 168), 168)
    struct.pack_into("P", handler, 136, ctypes.cast(ctypes.CDLL(None).realloc, ctypes.c_void_p).value)
    _HANDLERS.append(handler)
    set_handler(capsule(ctypes.addressof(handler), b"mem_handler", None))


def _fill_memory(byte: int) -> None:
    """Let malloc fill new memory with this byte, if it is that of glibc."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_PERTURB, byte ^ 0xFF)


#: The parameter of mallopt in malloc.h of glibc.
_M_PERTURB = -6
_PYTHON = ctypes.pythonapi
_HANDLERS: list[Any] = []


class _Delay(Callback):
    """Delays one rank at each step, in turn."""

    def before_step(self, state: State) -> None:
        """Wait if it is this rank's turn."""
        if state.step < DELAYED_STEPS and state.step % state.world.size == state.world.rank:
            time.sleep(DELAY)


if __name__ == "__main__":
    pin(os.environ[VARIABLE])
    runpy.run_module("anyrank", run_name="__main__")
