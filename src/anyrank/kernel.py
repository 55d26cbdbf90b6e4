"""Kernels, and the choice of a body for this rank."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from anyrank.device import GPU_BODIES, Device, Module, open_device
from anyrank.device.find import gpu_missing
from anyrank.errors import UsageError
from anyrank.kernels import Declined

#: Every body and the file of a kernel's folder that holds it.
FILES = {"reference": "reference", "numba": "cpu_numba", "cython": "cpu_cython", "cupy": "gpu", "shim": "gpu"}
#: What is tried on the host, fastest first; compiled ahead comes before compiled at start-up.
CPU = ("cython", "numba", "reference")


@dataclass(frozen=True)
class Body:
    """One implementation of a kernel, and why it was taken."""

    name: str
    function: Callable[..., Any]
    reason: str


class Bodies:
    """Which bodies the kernels of this process use, and its device: set once by the run, `auto` until then."""

    def __init__(self) -> None:
        #: Counts the calls of `prefer`: a kernel that chose before the last one chooses again.
        self.round = 0
        self._wanted = "auto"
        #: The body of every kernel that has been called, by the kernel's name, for logs and summaries.
        self.chosen: dict[str, Body] = {}

    def prefer(self, wanted: str, node_rank: int = 0) -> None:
        """Use `wanted` from now on: a name of FILES, or `auto`, or several, of which the ranks of a node take turns.

        UsageError where it cannot be used.
        """
        turns = wanted.split(",")
        check_bodies(turns)
        mine = turns[node_rank % len(turns)]
        self._wanted, self.no_gpu = mine, "not asked for"
        self.__dict__["device"] = self._open(mine, node_rank)
        self.chosen = {}
        self.round += 1

    @cached_property
    def device(self) -> Device:
        """The device of this process."""
        return self._open(self._wanted, 0)

    def _open(self, wanted: str, node_rank: int) -> Device:
        if wanted != "auto":
            return open_device(wanted, node_rank)
        self.no_gpu = gpu_missing()
        if not self.no_gpu:
            try:
                return open_device("cupy", node_rank)
            except UsageError as refusal:
                self.no_gpu = str(refusal)
        return Device()

    def order(self, host: bool) -> tuple[str, ...]:
        """The bodies to try for a kernel, best first; `host` says that its arrays are on the host."""
        gpu = self._wanted if self._wanted != "auto" else "cupy"
        if not self.device.on_host and not host:
            return gpu, "reference"
        if self._wanted in CPU:
            return self._wanted, *(name for name in CPU if name != self._wanted)
        return CPU

    def reason(self, name: str) -> str:
        """Why a body was taken that was the first to be tried."""
        return "as requested" if self._wanted == name else "the fastest here"

    def on_host(self, arguments: Sequence[Any]) -> bool:
        """Whether a call with these arguments must run on the host, because NumPy's arrays are all it has."""
        device = self.device
        if device.on_host or not any(isinstance(a, np.ndarray) for a in arguments):
            return False
        return not any(device.owns(a) for a in arguments)


BODIES = Bodies()


def check_bodies(wanted: Sequence[str]) -> None:
    """Raise UsageError where one of the names is no body."""
    for name in wanted:
        if name not in (*FILES, "auto"):
            raise UsageError(f"--body {name!r} must be one of auto, {', '.join(FILES)}.")


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
        self._bodies: dict[bool, Body] = {}
        self._round = 0
        unknown = set(bodies) - set(FILES)
        if unknown:
            raise TypeError(f"kernel {self.name}: {sorted(unknown)} are not bodies; they are {list(FILES)}")

    def __call__(self, *arguments: Any) -> Any:
        """Call the chosen body: on a GPU where arrays are there, or none are anywhere."""
        return self.body(BODIES.on_host(arguments)).function(*arguments)

    def body(self, host: bool = False) -> Body:
        """The body that this process uses, chosen at the first call; `host`: for arrays that are not on its GPU."""
        if self._round != BODIES.round:
            self._bodies, self._round = {}, BODIES.round
        if host not in self._bodies:
            self._bodies[host] = body = self._choose(host)
            if not host or self.name not in BODIES.chosen:
                BODIES.chosen[self.name] = body
        return self._bodies[host]

    def _choose(self, host: bool) -> Body:
        refusals: list[str] = []
        for name in BODIES.order(host):
            try:
                function = self.load(name, BODIES.device)
            except Declined as refusal:
                refusals.append(f"{name}: {refusal}")
                continue
            return Body(name, function, "; ".join(refusals) or BODIES.reason(name))
        raise UsageError(f"kernel {self.name} has no body that works here: {'; '.join(refusals)}")

    def load(self, name: str, device: Device) -> Callable[..., Any]:
        """The function of the body `name`; raises Declined with the reason where it cannot be used."""
        if not self.folder:
            if name in GPU_BODIES and name not in self._functions and not device.on_host:
                name = "reference"  # plain code over arrays works on those of a GPU, too
            if name not in self._functions:
                raise Declined("the program gives no such body")
            return self._functions[name]
        path = f"anyrank.kernels.{self.folder}.{FILES[name]}"
        try:
            module = importlib.import_module(path)
        except ImportError as error:
            raise Declined("no such body here" if error.name == path else f"cannot be imported ({error})") from error
        function: Callable[..., Any] = getattr(module, self.operation, None) or _no_operation(self.operation)
        if FILES[name] == "gpu":
            return partial(function, loaded(device, Path(str(module.__file__)).with_name("gpu.cu")))
        return function


def _no_operation(operation: str) -> Any:
    raise Declined(f"has no operation {operation}")


def native(array: Any) -> Any:
    """Return the array as compiled kernels read it: aligned, and in this machine's byte order.

    A NumPy array that is not so, such as a field of packed records, is copied; any other array is returned itself.
    """
    if isinstance(array, np.ndarray) and not (array.flags.aligned and array.dtype.isnative):
        return array.astype(array.dtype.newbyteorder("="))
    return array


_LOADED: dict[tuple[str, Path], Module] = {}


def loaded(device: Device, source: Path) -> Module:
    """The CUDA C of a file, compiled for a device when it is first asked for."""
    key = (device.name, source)
    if key not in _LOADED:
        _LOADED[key] = device.load(source)
    return _LOADED[key]


def installed() -> Iterator[Kernel]:
    """Every operation of every kernel that comes with anyrank, in the order of their names."""
    import anyrank.kernels

    for root in anyrank.kernels.__path__:
        for folder in sorted(path.parent.name for path in Path(root).glob("*/__init__.py")):
            for operation in importlib.import_module(f"anyrank.kernels.{folder}").OPERATIONS:
                yield Kernel(folder, operation)
