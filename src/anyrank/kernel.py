"""Kernels, and the selection of a body for this rank."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from anyrank.device import GPU_BODIES, Device, Module, open_device
from anyrank.device.select import gpu_missing
from anyrank.errors import UsageError
from anyrank.kernels import Declined

#: Every body, and its file in the folder of a kernel.
FILES = {"reference": "reference", "numba": "cpu_numba", "cython": "cpu_cython", "cupy": "gpu", "shim": "gpu"}
#: The bodies to try on the host, the fastest first: one compiled in advance before one compiled at start-up.
CPU = ("cython", "numba", "reference")


@dataclass(frozen=True)
class Body:
    """One implementation of a kernel, and the reason why it was selected."""

    name: str
    function: Callable[..., Any]
    reason: str


class Bodies:
    """The bodies of the kernels of this process, and its device: set once by the run, `auto` until then."""

    def __init__(self) -> None:
        #: The number of calls of `prefer`: after each call every kernel selects its body again.
        self.round = 0
        self._requested = "auto"
        #: The body of every kernel that was called, by the name of the kernel, for logs and summaries.
        self.chosen: dict[str, Body] = {}

    def prefer(self, requested: str, node_rank: int = 0) -> None:
        """Use a body from now on: a name in FILES, or `auto`, or several names, in turn by the ranks of a node.

        Raises UsageError if the body cannot be used.
        """
        names = requested.split(",")
        check_bodies(names)
        name = names[node_rank % len(names)]
        self._requested, self.no_gpu = name, "not requested"
        self.__dict__["device"] = self._open(name, node_rank)
        self.chosen = {}
        self.round += 1

    @cached_property
    def device(self) -> Device:
        """The device of this process."""
        return self._open(self._requested, 0)

    def _open(self, body: str, node_rank: int) -> Device:
        if body != "auto":
            return open_device(body, node_rank)
        self.no_gpu = gpu_missing()
        if not self.no_gpu:
            try:
                return open_device("cupy", node_rank)
            except UsageError as refusal:
                self.no_gpu = str(refusal)
        return Device()

    def order(self, host: bool) -> tuple[str, ...]:
        """Return the bodies to try for a kernel, the best first; `host` means that its arrays are on the host."""
        gpu = self._requested if self._requested != "auto" else "cupy"
        if not self.device.on_host and not host:
            return gpu, "reference"
        if self._requested in CPU:
            return self._requested, *(name for name in CPU if name != self._requested)
        return CPU

    def reason(self, name: str) -> str:
        """Return the reason for a body that was the first to be tried."""
        return "as requested" if self._requested == name else "the fastest here"

    def on_host(self, arguments: Sequence[Any]) -> bool:
        """Return whether a call with these arguments must run on the host, because all its arrays are NumPy arrays."""
        device = self.device
        if device.on_host or not any(isinstance(a, np.ndarray) for a in arguments):
            return False
        return not any(device.owns(a) for a in arguments)


BODIES = Bodies()


def check_bodies(names: Sequence[str]) -> None:
    """Raise UsageError if one of the names is not a body."""
    for name in names:
        if name not in (*FILES, "auto"):
            raise UsageError(f"--body {name!r} must be one of auto, {', '.join(FILES)}.")


class Kernel:
    """One operation on local arrays: a folder of `anyrank.kernels`, or a function of the user.

    A call of the kernel calls the body that is selected for this process, so that ranks may use different bodies; all
    bodies give the same bits. Not collective.

    Parameters
    ----------
    source : str or callable
        The name of a folder of `anyrank.kernels`, or a function of NumPy arrays, which is the reference body.
    operation : str, optional
        The operation of the folder: `Kernel("philox", "words")`. The default has the name of the folder.
    indices : bool
        Whether `advance` passes the global indices of the region as the last argument: a tuple of one int64 array per
        axis, with shapes that broadcast. In ghost cells across a periodic boundary they are those of the owner.
    **bodies : callable
        Faster bodies of the user's function by name, such as `numba=other`.

    Raises
    ------
    TypeError
        If there is no such body.

    Examples
    --------
    >>> def double(new, old):
    ...     new[...] = 2 * old
    >>> new = np.zeros(2)
    >>> Kernel(double)(new, np.array([1.0, 2.0]))
    >>> new
    array([2., 4.])
    """

    def __init__(
        self,
        source: str | Callable[..., Any],
        operation: str | None = None,
        *,
        indices: bool = False,
        **bodies: Callable[..., Any],
    ):
        self.indices = indices
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
        """Call the selected body: on the GPU if an array is there or no argument is an array."""
        return self.body(BODIES.on_host(arguments)).function(*arguments)

    def body(self, host: bool = False) -> Body:
        """Return the body that this process uses, selected at the first call. Not collective.

        Parameters
        ----------
        host : bool
            Whether the arrays are on the host, also if the process has a GPU.

        Raises
        ------
        UsageError
            If no body can be used.
        """
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
        """Return the function of the body `name`; raise Declined if it cannot be used (for the runtime)."""
        if not self.folder:
            if name in GPU_BODIES and name not in self._functions and not device.on_host:
                name = "reference"  # array code of the user also works on arrays of a GPU
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
            return partial(function, load_module(device, Path(str(module.__file__)).with_name("gpu.cu")))
        return function


def _no_operation(operation: str) -> Any:
    raise Declined(f"has no operation {operation}")


def native(array: Any) -> Any:
    """Return the array aligned and in the native byte order, as compiled kernels need it.

    A NumPy array that is not, such as a field of packed records, is copied; any other array is returned unchanged.
    """
    if isinstance(array, np.ndarray) and not (array.flags.aligned and array.dtype.isnative):
        return array.astype(array.dtype.newbyteorder("="))
    return array


_MODULES: dict[tuple[str, Path], Module] = {}


def load_module(device: Device, source: Path) -> Module:
    """Return the CUDA C of a file, compiled for a device at the first call."""
    key = (device.name, source)
    if key not in _MODULES:
        _MODULES[key] = device.load(source)
    return _MODULES[key]


def installed_kernels() -> Iterator[Kernel]:
    """Yield every operation of every kernel of anyrank, in the order of their names."""
    import anyrank.kernels

    for root in anyrank.kernels.__path__:
        for folder in sorted(path.parent.name for path in Path(root).glob("*/__init__.py")):
            for operation in importlib.import_module(f"anyrank.kernels.{folder}").OPERATIONS:
                yield Kernel(folder, operation)
