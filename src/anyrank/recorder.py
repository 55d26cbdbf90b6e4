"""The recorder of --check: every collective call of every rank, compared before it can hang.

Each call on a checked communicator is first put into words, and a hash of the words travels to all ranks
in a non-blocking all-reduce. A blocking call waits for it, as MPI allows any collective to do; a
non-blocking one when its request is waited for. Where hashes differ, all ranks raise one error.

The words hold what must be the same on all ranks: operation, type, count, root and reduction. They leave
out what may differ: counts by rank (Gatherv…), the size of pickled objects, and the line that calls.

Not checked are communicators that are made of a checked one (Split, Dup…), persistent collectives,
one-sided communication, and what compiled code calls. Calls on several communicators, MPI.COMM_WORLD among
them, must have one order; what `MPI.Request.Waitall` waits for is compared at the next call.
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

from anyrank.errors import AnyrankError, of_all_ranks, spans

#: Calls that are kept for whoever asks for the last ones, and groups of ranks that an error shows.
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
    """A call of this rank: its number among the collective ones, what it is, where it is made, and at which step."""

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
    """Keeps this rank's calls, and compares them with those of the other ranks. Making one is collective.

    `comm` is that communicator as a checked one. `everywhere` checks MPI.COMM_WORLD, too, by any name in a module.
    """

    def __init__(self, comm: MPI.Intracomm, everywhere: bool = False):
        #: The step that calls belong to; None as long as nobody has told.
        self.step: int | None = None
        self.comm = _checked(comm, self)
        self._hashes, self._reports = comm.Dup(), comm.Dup()
        self._number, self._name = 0, ""
        self._error: AnyrankError | None = None
        self._recent: deque[Call] = deque(maxlen=KEPT)
        self._pending: deque[tuple[Call, np.ndarray, MPI.Request]] = deque()
        self._plain = self._whole = MPI.COMM_WORLD
        if everywhere and not isinstance(self._plain, Checked):
            self._whole = _checked(self._plain, self, " on MPI.COMM_WORLD")
            _replace(self._plain, self._whole)

    def meet(self, what: str, wait: bool = True) -> int:
        """Record a collective call and compare it with those of the other ranks, waiting for them or not. Collective.

        Returns the call's number. Raises AnyrankError on all ranks where calls differ, and ever after.
        """
        self.settle(self._number, wait=False)
        self._number += 1
        call = self.note(self._name or what)
        self._name = ""
        value = int.from_bytes(blake2b(call.what.encode(), digest_size=8).digest(), "little") >> 1
        extremes = np.empty(2, np.int64)
        request = self._hashes.Iallreduce(np.array([value, -value]), extremes, MPI.MAX)
        self._pending.append((call, extremes, request))
        if wait:
            self.settle(call.number)
        return call.number

    def settle(self, until: int, wait: bool = True) -> bool:
        """Whether all ranks have come to the call of that number, waiting for them or not.

        Raises AnyrankError on all ranks where this call or an earlier one differs.
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
        """The error that all ranks raise, with the ranks of each distinct call. Collective."""
        gathered = self._reports.allgather((str(call), call.step))
        groups: dict[str, list[int]] = {}
        for rank, (text, _) in enumerate(gathered):
            groups.setdefault(text, []).append(rank)
        steps = {step for _, step in gathered if step is not None}
        when = f" (step{'s' * (len(steps) > 1)} {spans(steps)})" if steps else ""
        lines = [f"rank{'s' * (len(who) > 1)} {spans(who)}: {text}" for text, who in groups.items()]
        lines[SHOWN:] = [f"and {len(lines) - SHOWN} calls more"] if len(lines) > SHOWN else []
        text = (
            f"collective calls differ at call {call.number}{when}:\n" + "\n".join(lines) + "\n"
            "All ranks must make the same calls in the same order, with the same type, count, root and reduction.\n"
            "Look for a branch or a loop around these lines that not all ranks take, and take the call out of it."
        )
        return of_all_ranks(AnyrankError(text))

    def note(self, what: str) -> Call:
        """Record a call that this rank makes alone, such as sending a message; nothing is compared."""
        call = Call(self._number, what, *_site(), self.step)
        self._recent.append(call)
        return call

    def recent(self) -> list[str]:
        """This rank's last calls, the oldest first, with their numbers; a message has that of the call before."""
        return [f"{call.number}: {call}" for call in self._recent]

    def ends_step(self, step: int) -> None:
        """Calls belong to this step from now on; the next one is the agreement at the end of the step before."""
        self.step, self._name = step, "the agreement at the end of a step"

    def close(self) -> None:
        """Compare the ends of all ranks' calls, and check no more. Collective; raises as `meet` does."""
        _replace(self._whole, self._plain)
        if self._error is None:
            self.meet("the end of the run")
        self.comm.recorder = None
        self._hashes.Free()
        self._reports.Free()


def _replace(old: Any, new: Any) -> None:
    """Let every name of a module that stands for `old` stand for `new`."""
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is old:
                setattr(module, name, new)


def is_program(file: str) -> bool:
    """Whether it is the file of a program that comes with anyrank, and so no library to its calls."""
    return file.startswith(_PACKAGE) and Path(file).parts[-2] == "programs"


def _site() -> tuple[str, int, str]:
    """File, line and function of a call: the user's innermost, or the runtime's where it calls for itself."""
    own = None
    for frame, line in traceback.walk_stack(sys._getframe()):
        file = frame.f_code.co_filename
        here = (file, line, frame.f_code.co_name)
        if is_program(file) or not file.startswith(_LIBRARIES):
            return here
        if own is None and file not in (__file__, _PACKAGE + "world.py"):
            own = here
        if file.startswith(_RUNTIME):
            break
    return own or here


class Checked(MPI.Intracomm):  # type: ignore[misc]
    """A communicator whose collective calls are compared, and whose messages are noted, by its recorder."""

    #: What MPI makes of this communicator has none, and is an ordinary one.
    recorder: Recorder | None = None
    label = ""


class _Request(MPI.Request):  # type: ignore[misc]
    """The request of a non-blocking collective, which ends when the call has been compared."""

    recorder: Recorder
    number: int

    def Wait(self, status: Any = None) -> Any:  # noqa: N802
        self.recorder.settle(self.number)
        return super().Wait(status)

    def Test(self, status: Any = None) -> Any:  # noqa: N802
        return self.recorder.settle(self.number, wait=False) and super().Test(status)


def _checked(comm: MPI.Intracomm, recorder: Recorder, label: str = "") -> Checked:
    checked = Checked(comm)
    checked.recorder, checked.label = recorder, label
    return checked


def _recorded(name: str) -> Callable[..., Any]:
    """A method of Intracomm that is recorded first: compared where it is collective, else noted."""
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
        words = _words(name, {**defaults, **dict(zip(names, args, strict=False)), **kwargs}, self.size) + self.label
        number = recorder.meet(words, wait=not immediate) if collective else recorder.note(words).number
        result = real(self, *args, **kwargs)
        if collective and immediate and isinstance(result, MPI.Request):
            result = _Request(result)
            result.recorder, result.number = recorder, number
        return result

    return call


for _name in dir(MPI.Intracomm):
    if _COLLECTIVE.fullmatch(_name) or _MESSAGE.fullmatch(_name):
        setattr(Checked, _name, _recorded(_name))


def _words(name: str, given: dict[str, Any], size: int) -> str:
    """What must be the same on all ranks, such as `Allreduce(sum of 1 int64)` or `bcast(root 0)`."""
    what = [_reduction(given["op"])] if "op" in given else []
    by_rank = name.lower().endswith(("gatherv", "scatterv", "alltoallv", "alltoallw"))
    if name[0].isupper() and not by_rank and {"buf", "sendbuf"} & given.keys():
        what.append(_amount(name.lower().removeprefix("i"), given, size))
    ends = [f"{end} {given[end]}" for end in ("root", "dest", "source") if end in given]
    spelt = name.capitalize() if name in ("barrier", "free") else name  # one operation in either spelling
    return f"{spelt}({', '.join([' of '.join(what)] * bool(what) + ends)})"


def _reduction(op: Any) -> str:
    if isinstance(op, MPI.Op):
        return next((name for name, known in _REDUCTIONS if known == op), "its own operation")
    return str(getattr(op, "__qualname__", type(op).__name__))


def _amount(name: str, given: dict[str, Any], size: int) -> str:
    """What each rank gives or gets, the same for all; where that is in place, it is part of the other buffer."""
    if "buf" in given:
        return _elements(given["buf"])
    each, whole = given["sendbuf"], given["recvbuf"]
    if name == "scatter":
        each, whole = whole, each
    if each is not MPI.IN_PLACE:
        return _elements(each)
    return _elements(whole, size if name in ("gather", "allgather", "scatter") else 1)


def _elements(buffer: Any, shares: int = 1) -> str:
    """Number and type of a buffer's elements, in any form that mpi4py takes; what it does not take, it refuses."""
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
    """The basic type that a datatype is made of, and its size; bytes where it is made of several."""
    if kind.is_predefined:
        return np.dtype(kind.typestr).name, kind.size
    inner = kind.Get_contents()[-1]
    found = {_basic(part) for part in inner}
    for part in inner:
        if not part.is_predefined:
            part.Free()
    return found.pop() if len(found) == 1 else ("uint8", 1)
