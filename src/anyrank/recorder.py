"""The recorder of --check: compares every collective call between the ranks before it can hang.

Before each call on a checked communicator, the ranks compare a hash of its description in a non-blocking all-reduce. A
blocking call waits for the comparison, because MPI allows every collective call to synchronize; a non-blocking call
waits for it with its request. If the hashes differ, all ranks raise the same error.

The description holds what must be the same on all ranks: operation, type, count, root and reduction. It omits what may
differ: counts by rank (Gatherv…), the size of pickled objects, and the calling line.

The recorder does not check communicators that are derived from a checked one (Split, Dup…), persistent collectives,
one-sided communication, and calls from compiled code. Calls on several communicators, such as MPI.COMM_WORLD, must have
the same order on all ranks. Requests of `MPI.Request.Waitall` are compared at the next call.
"""

from __future__ import annotations

import inspect
import linecache
import os
import re
import sys
import traceback
from collections import deque
from collections.abc import Callable
from functools import wraps
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mpi4py import MPI

from anyrank.errors import AnyrankError, as_ranges, of_all_ranks

#: The number of last calls that are kept, and the number of groups of ranks in an error message.
KEPT, SHOWN = 20, 8

_PACKAGE = str(Path(__file__).parent) + os.sep
_LIBRARIES = (_PACKAGE, str(Path(MPI.__file__).parent) + os.sep)
_RUNTIME = (_PACKAGE + "runtime" + os.sep, _PACKAGE + "cli" + os.sep)

_COLLECTIVE = re.compile(
    r"I?(Barrier|Bcast|(All)?Gatherv?|Scatterv?|AlltoAll[vw]?|(All)?Reduce|Reduce_scatter(_block)?|(Ex)?Scan"
    r"|(Dup|Split|Spawn)\w*|Create(_(cart|graph|dist|inter)\w*)?|Clone|Free|Accept|Connect|Disconnect)",
    re.IGNORECASE,
)
_MESSAGE = re.compile(r"I?[bsr]?(send|recv|sendrecv)(_replace)?", re.IGNORECASE)
_REDUCTIONS = [(name.lower(), value) for name, value in vars(MPI).items() if isinstance(value, MPI.Op)]


class Call(NamedTuple):
    """A call of this rank: its number among the collective calls, its description, its location and its step."""

    number: int
    what: str
    file: str
    line: int
    function: str
    step: int | None

    def __str__(self) -> str:
        code = linecache.getline(self.file, self.line).strip()
        return f"{self.what} at {Path(self.file).name}:{self.line} in {self.function}{code and f': {code}'}"


class Recorder:
    """Records the calls of this rank and compares them with those of the other ranks. The constructor is collective.

    `comm` is the checked communicator. `everywhere` also checks MPI.COMM_WORLD, under any name in any module.
    """

    def __init__(self, comm: MPI.Intracomm, everywhere: bool = False):
        #: The step of the calls; None if it is unknown.
        self.step: int | None = None
        self.comm = _checked(comm, self)
        self._hashes, self._reports = comm.Dup(), comm.Dup()
        self._number, self._name = 0, ""
        self._error: AnyrankError | None = None
        self._recent: deque[Call] = deque(maxlen=KEPT)
        self._pending: deque[tuple[Call, np.ndarray, MPI.Request]] = deque()
        self._world = self._checked_world = MPI.COMM_WORLD
        if everywhere and not isinstance(self._world, Checked):
            self._checked_world = _checked(self._world, self, " on MPI.COMM_WORLD")
            _replace(self._world, self._checked_world)

    def compare(self, what: str, wait: bool = True) -> int:
        """Record a collective call and compare it between the ranks; `wait` for the result or not. Collective.

        Returns the number of the call. Raises AnyrankError on all ranks if the calls differ, and at every later call.
        """
        self.complete(self._number, wait=False)
        self._number += 1
        call = self.note(self._name or what)
        self._name = ""
        value = int.from_bytes(blake2b(call.what.encode(), digest_size=8).digest(), "little") >> 1
        extremes = np.empty(2, np.int64)
        request = self._hashes.Iallreduce(np.array([value, -value]), extremes, MPI.MAX)
        self._pending.append((call, extremes, request))
        if wait:
            self.complete(call.number)
        return call.number

    def complete(self, until: int, wait: bool = True) -> bool:
        """Return whether the comparisons up to the call of that number are complete; `wait` for them or not.

        Raises AnyrankError on all ranks if this call or an earlier one differs.
        """
        if self._error is not None:
            raise self._error
        while self._pending and self._pending[0][0].number <= until:
            call, extremes, request = self._pending[0]
            if wait:
                request.Wait()
            elif not request.Test():
                return False
            self._pending.popleft()
            if extremes[0] != -extremes[1]:
                self._error = self._difference(call)
                raise self._error
        return True

    def _difference(self, call: Call) -> AnyrankError:
        """Return the error that all ranks raise, with the ranks of each different call. Collective."""
        gathered = self._reports.allgather((str(call), call.step))
        groups: dict[str, list[int]] = {}
        for rank, (text, _) in enumerate(gathered):
            groups.setdefault(text, []).append(rank)
        steps = {step for _, step in gathered if step is not None}
        when = f" (step{'s' * (len(steps) > 1)} {as_ranges(steps)})" if steps else ""
        lines = [f"rank{'s' * (len(who) > 1)} {as_ranges(who)}: {text}" for text, who in groups.items()]
        lines[SHOWN:] = [f"and {len(lines) - SHOWN} calls more"] if len(lines) > SHOWN else []
        text = (
            f"collective calls differ at call {call.number}{when}:\n" + "\n".join(lines) + "\n"
            "All ranks must make the same calls in the same order, with the same type, count, root and reduction.\n"
            "Look for a branch or a loop around these lines that not all ranks take, and take the call out of it."
        )
        return of_all_ranks(AnyrankError(text))

    def note(self, what: str) -> Call:
        """Record a call that is not collective, such as sending a message, without a comparison."""
        call = Call(self._number, what, *_caller(), self.step)
        self._recent.append(call)
        return call

    def recent(self) -> list[str]:
        """Return the last calls of this rank, the oldest first, with their numbers.

        A message has the number of the collective call before it.
        """
        return [f"{call.number}: {call}" for call in self._recent]

    def end_step(self, step: int) -> None:
        """Set the step of later calls, and name the next call "the agreement at the end of a step"."""
        self.step, self._name = step, "the agreement at the end of a step"

    def close(self) -> None:
        """Check that no rank makes further calls, and end the checks. Collective; raises as `compare` does."""
        _replace(self._checked_world, self._world)
        if self._error is None:
            self.compare("the end of the run")
        self.comm.recorder = None
        self._hashes.Free()
        self._reports.Free()


def _replace(old: Any, new: Any) -> None:
    """Bind every module-level name of the object `old` to `new`."""
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is old:
                setattr(module, name, new)


def is_program(file: str) -> bool:
    """Return whether it is the file of a program of anyrank, whose calls count as those of a user."""
    return file.startswith(_PACKAGE) and Path(file).parts[-2] == "programs"


def _caller() -> tuple[str, int, str]:
    """File, line and function of a call: the innermost one of the user, or of anyrank if the runtime calls."""
    internal = None
    for frame, line in traceback.walk_stack(sys._getframe()):
        file = frame.f_code.co_filename
        site = (file, line, frame.f_code.co_name)
        if is_program(file) or not file.startswith(_LIBRARIES):
            return site
        if internal is None and file not in (__file__, _PACKAGE + "world.py"):
            internal = site
        if file.startswith(_RUNTIME):
            break
    return internal or site


class Checked(MPI.Intracomm):  # type: ignore[misc]
    """A communicator whose recorder compares its collective calls and records its messages."""

    #: None for communicators that MPI derives from this one, which are not checked.
    recorder: Recorder | None = None
    label = ""


class _Request(MPI.Request):  # type: ignore[misc]
    """The request of a non-blocking collective call, which also waits for the comparison of the call."""

    recorder: Recorder
    number: int

    def Wait(self, status: Any = None) -> Any:  # noqa: N802
        self.recorder.complete(self.number)
        return super().Wait(status)

    def Test(self, status: Any = None) -> Any:  # noqa: N802
        return self.recorder.complete(self.number, wait=False) and super().Test(status)


def _checked(comm: MPI.Intracomm, recorder: Recorder, label: str = "") -> Checked:
    checked = Checked(comm)
    checked.recorder, checked.label = recorder, label
    return checked


def _recorded(name: str) -> Callable[..., Any]:
    """Return a method of Intracomm that first compares the call if it is collective, and records it otherwise."""
    real = getattr(MPI.Intracomm, name)
    parameters = [*inspect.signature(real).parameters.values()][1:]
    names = [parameter.name for parameter in parameters]
    defaults = {parameter.name: parameter.default for parameter in parameters}
    collective, immediate = not _MESSAGE.fullmatch(name), name.startswith("I")

    @wraps(real)
    def call(self: Checked, *args: Any, **kwargs: Any) -> Any:
        recorder = self.recorder
        if recorder is None:
            return real(self, *args, **kwargs)
        given = {**defaults, **dict(zip(names, args, strict=False)), **kwargs}
        what = _description(name, given, self.size) + self.label
        number = recorder.compare(what, wait=not immediate) if collective else recorder.note(what).number
        result = real(self, *args, **kwargs)
        if collective and immediate and isinstance(result, MPI.Request):
            result = _Request(result)
            result.recorder, result.number = recorder, number
        return result

    return call


for _name in dir(MPI.Intracomm):
    if _COLLECTIVE.fullmatch(_name) or _MESSAGE.fullmatch(_name):
        setattr(Checked, _name, _recorded(_name))


def _description(name: str, given: dict[str, Any], size: int) -> str:
    """Return what must be the same on all ranks in a call: `Allreduce(sum of 1 int64)`, `bcast(root 0)`."""
    what = [_reduction(given["op"])] if "op" in given else []
    by_rank = name.lower().endswith(("gatherv", "scatterv", "alltoallv", "alltoallw"))
    if name[0].isupper() and not by_rank and {"buf", "sendbuf"} & given.keys():
        what.append(_amount(name.lower().removeprefix("i"), given, size))
    ends = [f"{end} {given[end]}" for end in ("root", "dest", "source") if end in given]
    operation = name.capitalize() if name in ("barrier", "free") else name  # both spellings are the same operation
    return f"{operation}({', '.join([' of '.join(what)] * bool(what) + ends)})"


def _reduction(op: Any) -> str:
    if isinstance(op, MPI.Op):
        return next((name for name, known in _REDUCTIONS if known == op), "its own operation")
    return str(getattr(op, "__qualname__", type(op).__name__))


def _amount(name: str, given: dict[str, Any], size: int) -> str:
    """Return the amount of data per rank, the same on all ranks; for an in-place call, from the other buffer."""
    if "buf" in given:
        return _elements(given["buf"])
    each, whole = given["sendbuf"], given["recvbuf"]
    if name == "scatter":
        each, whole = whole, each
    if each is not MPI.IN_PLACE:
        return _elements(each)
    return _elements(whole, size if name in ("gather", "allgather", "scatter") else 1)


def _elements(buffer: Any, shares: int = 1) -> str:
    """Return the number and type of the elements of a buffer, in any form that mpi4py accepts."""
    try:
        data, *rest = buffer if isinstance(buffer, list | tuple) else [buffer]
        memory = data if hasattr(data, "nbytes") else memoryview(b"" if data in (None, MPI.BOTTOM) else data)
        kinds = [item for item in rest if isinstance(item, str | MPI.Datatype)]
        counts = [item[0] if isinstance(item, tuple) else item for item in rest if item not in (None, *kinds)]
        kind = kinds[0] if kinds else np.dtype(getattr(memory, "dtype", None) or memory.format).str[1:]
        kind = MPI.Datatype.fromcode(kind) if isinstance(kind, str) else kind
        name, size = _basic(kind)
        count = int(counts[0]) if counts else memory.nbytes // kind.extent
        return f"{count * kind.size // size // shares} {name}"
    except (TypeError, ValueError, KeyError, AttributeError):
        return f"a {type(buffer).__name__}"


def _basic(kind: MPI.Datatype) -> tuple[str, int]:
    """Return the basic type of a datatype, and its size; bytes if it consists of several types."""
    if kind.is_predefined:
        return np.dtype(kind.typestr).name, kind.size
    inner = kind.Get_contents()[-1]
    types = {_basic(part) for part in inner}
    for part in inner:
        if not part.is_predefined:
            part.Free()
    return types.pop() if len(types) == 1 else ("uint8", 1)
