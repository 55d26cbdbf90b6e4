"""Kernels, and the choice of a body for this rank."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from anyrank.device import Device, gpu_missing, open_device
from anyrank.errors import UsageError
from anyrank.kernels import Declined

#: Every body and the file of a kernel's folder that holds it.
FILES = {"reference": "reference", "numba": "cpu_numba", "cython": "cpu_cython", "cupy": "gpu", "shim": "gpu"}
#: What `auto` tries, fastest first; compiled ahead comes before compiled at start-up.
AUTO = ("cupy", "cython", "numba", "reference")


@dataclass(frozen=True)
class Body:
    """One implementation of a kernel, and why it was taken."""

    name: str
    function: Callable[..., Any]
    reason: str


class Bodies:
    """Which body every kernel of this process uses: set once by the run, `auto` until then."""

    def __init__(self) -> None:
        self.prefer("auto")

    def prefer(self, wanted: str, node_rank: int = 0) -> None:
        """Use `wanted` (a name of FILES, or `auto`) from now on; UsageError where it cannot be used."""
        if wanted not in (*FILES, "auto"):
            raise UsageError(f"--body {wanted!r} is not a body: it must be one of auto, {', '.join(FILES)}.")
        self.wanted = wanted
        if wanted == "auto":
            self.no_gpu = gpu_missing()
            self.order: tuple[str, ...] = AUTO[1:] if self.no_gpu else AUTO
        else:
            self.no_gpu = "not asked for"
            self.order = (wanted, *(name for name in AUTO[1:] if name != wanted))
        self.device: Device = open_device(self.order[0], node_rank)
        #: The body of every kernel that has been called, by the kernel's name, for logs and summaries.
        self.chosen: dict[str, Body] = {}
        #: Counts the calls of `prefer`: a kernel that chose before the last one chooses again.
        self.round = getattr(self, "round", 0) + 1


BODIES = Bodies()


class Kernel:
    """One operation on local arrays: a folder of `anyrank.kernels`, or a function of the user's.

    `Kernel("philox", "words")` is the operation `words` of the folder `philox` (the operation is the
    folder's name where it is left out). `Kernel(function)` makes a function over NumPy arrays the
    reference body; `Kernel(function, numba=other)` adds bodies by name. Calling the kernel calls the
    body chosen for this process, so each rank of a run may use another; the results are the same bits.
    """

    def __init__(self, source: str | Callable[..., Any], operation: str | None = None, **bodies: Callable[..., Any]):
        if callable(source):
            self.folder, self.operation = "", source.__name__
            self.name = source.__name__
            self._functions = {"reference": source, **bodies}
        else:
            self.folder, self.operation = source, operation or source
            self.name = source if operation in (None, source) else f"{source}.{operation}"
            self._functions = {}
        self._body: Body | None = None
        self._round = 0
        unknown = set(bodies) - set(FILES)
        if unknown:
            raise TypeError(f"kernel {self.name}: {sorted(unknown)} are not bodies; they are {list(FILES)}")

    def __call__(self, *arguments: Any) -> Any:
        """Call the chosen body."""
        return self.body().function(*arguments)

    def body(self) -> Body:
        """The body that this process uses, chosen at the first call."""
        if self._body is None or self._round != BODIES.round:
            self._body, self._round = self._choose(), BODIES.round
            BODIES.chosen[self.name] = self._body
        return self._body

    def _choose(self) -> Body:
        refusals: list[str] = []
        # A user's functions get arrays of the device: there plain array code works, compiled CPU code does not.
        here = BODIES.device.on_host or self.folder
        for name in BODIES.order if here else (BODIES.order[0], "reference"):
            try:
                function = self.load(name, BODIES.device)
            except Declined as refusal:
                refusals.append(f"{name}: {refusal}")
                continue
            reason = "; ".join(refusals) or ("as asked" if BODIES.wanted == name else "the fastest here")
            return Body(name, function, reason)
        raise UsageError(f"kernel {self.name} has no body that works here: {'; '.join(refusals)}")

    def load(self, name: str, device: Device) -> Callable[..., Any]:
        """The function of the body `name`; raises Declined with the reason where it cannot be used."""
        if not self.folder:
            if name not in self._functions:
                raise Declined("the program gives no such body")
            return self._functions[name]
        package = f"anyrank.kernels.{self.folder}"
        try:
            module = importlib.import_module(f"{package}.{FILES[name]}")
        except ImportError as error:
            raise Declined(f"cannot be imported ({error})") from error
        function: Callable[..., Any] = getattr(module, self.operation, None) or _no_operation(self.operation)
        if FILES[name] == "gpu":
            return partial(function, _loaded(device, Path(str(module.__file__)).with_name("gpu.cu")))
        return function


def _no_operation(operation: str) -> Any:
    raise Declined(f"has no operation {operation}")


_LOADED: dict[tuple[str, Path], Any] = {}


def _loaded(device: Device, source: Path) -> Any:
    key = (device.name, source)
    if key not in _LOADED:
        try:
            _LOADED[key] = device.load(source)
        except Exception as error:
            if BODIES.wanted != "auto":
                raise
            raise Declined(f"{source.name} cannot be compiled here ({error})") from error
    return _LOADED[key]


def installed() -> Iterator[Kernel]:
    """Every operation of every kernel that comes with anyrank, in the order of their names."""
    import anyrank.kernels

    for root in anyrank.kernels.__path__:
        for folder in sorted(path.parent.name for path in Path(root).glob("*/__init__.py")):
            for operation in importlib.import_module(f"anyrank.kernels.{folder}").OPERATIONS:
                yield Kernel(folder, operation)
