"""A GPU that is not there: CuPy's interface, as far as anyrank uses it, over memory and threads of the host.

It is there to run the whole way of a GPU where none is, and to fail where a GPU would, if not more often. Its
arrays are not NumPy's and do not become such by themselves. What is launched waits in its stream and runs as late as
may be: when the host waits for it, or what the host waits for has to come after it. So a result that nobody waited
for is not there yet, and what two streams do in an order that no event sets is done in the wrong one.

ANYRANK_SHIM describes the machine, for tests: `gpus=2 memory=1e9 lost=1 driver=12020 order=random:7`. With
`fails=N grave=FILE` a device is lost after N launches, in later processes too, for FILE then names it.
"""

from __future__ import annotations

import ctypes
import random
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import DTypeLike

from anyrank.device.emulated.machine import (
    CUDARuntimeError,
    OutOfMemoryError,
    alloc_pinned_memory,
    check,
    described,
    is_pinned,
    runtime,
)
from anyrank.device.emulated.shim import compiled, launch

__version__ = "fake"
#: Bytes that went `out` of the device to the host, and `in`; and the bytes in use, by device.
crossed: Counter[str] = Counter()
in_use: Counter[int] = Counter()
_ONE_AT_A_TIME = threading.RLock()
_HERE = threading.local()
_NUMBERS = count()
_STREAMS: weakref.WeakSet[Stream] = weakref.WeakSet()
_VIEWS = (type(None), slice, int, type(Ellipsis))
#: What arrays have: facts, other views of their memory (a copy where there can be none), and new arrays.
_FACTS = ("dtype", "shape", "ndim", "size", "itemsize", "nbytes", "strides")
_OTHERS = ("T", "real", "imag", "reshape", "ravel", "transpose", "squeeze", "swapaxes")
_MAKERS = ("copy", "astype", "min", "max", "any", "all", "sum", "mean", "prod", "clip", "round", "argmin", "argmax")


class Event:
    """A place in a stream."""

    def __init__(self, **_: Any) -> None:
        self.stream, self.place = Stream.null, 0

    def record(self, stream: Stream | None = None) -> None:
        """Be the place that the stream has come to."""
        self.stream = stream or get_current_stream()
        self.place = self.stream.length

    def synchronize(self) -> None:
        """Run what comes before it."""
        self.stream.run(self.place)


class Stream:
    """Work in its order; none of it is done before somebody waits for it."""

    null: Stream

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False) -> None:
        self.length = self.done_to = 0
        self.number, self.device = next(_NUMBERS), Device().id
        self._waiting: dict[int, Callable[[], Any]] = {}
        _STREAMS.add(self)

    def add(self, work: Callable[[], Any]) -> None:
        """Put work at the end."""
        with _ONE_AT_A_TIME:
            self._waiting[self.length] = work
            self.length += 1
            _shuffle()

    def run(self, place: int) -> None:
        """Do what comes before a place."""
        with _ONE_AT_A_TIME:
            while self.done_to < place:
                work = self._waiting.pop(self.done_to)
                self.done_to += 1
                work()

    def record(self, event: Event | None = None) -> Event:
        """An event at the end."""
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Do nothing that comes now before the event."""
        stream, place = event.stream, event.place
        self.add(lambda: stream.run(place))

    def synchronize(self) -> None:
        """Do everything; CUDARuntimeError of a device that is lost."""
        check(self.device)
        self.run(self.length)

    def use(self) -> Stream:
        """Be this thread's stream; CUDARuntimeError where it is another device's than the thread's."""
        if self is not Stream.null and self.device != Device().id:
            raise CUDARuntimeError("cudaErrorInvalidResourceHandle: invalid resource handle")
        _HERE.__dict__.setdefault("streams", {})[Device().id] = self
        return self

    def __enter__(self) -> Stream:
        self.use()
        _entered().append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _entered().pop()
        _entered()[-1].use()  # what another `use` said is forgotten


_ORDER = described("order", "late")
_DICE = random.Random(_ORDER)


def _shuffle() -> None:
    """Where the order is random, some streams go on by some of their work."""
    if _ORDER != "late":
        for stream in sorted(_STREAMS, key=lambda one: one.number):
            stream.run(_DICE.randint(stream.done_to, stream.length))


def _entered() -> list[Stream]:
    """The streams that this thread is in, the innermost last."""
    streams: list[Stream] = _HERE.__dict__.setdefault("entered", {}).setdefault(Device().id, [Stream.null])
    return streams


def get_current_stream() -> Stream:
    """This thread's stream, on its device."""
    stream: Stream = _HERE.__dict__.setdefault("streams", {}).setdefault(Device().id, Stream.null)
    return stream


class ndarray(NDArrayOperatorsMixin):  # noqa: N801
    """An array of the device."""

    __slots__ = ("__weakref__", "_memory")

    def __init__(self, memory: np.ndarray):
        self._memory = memory

    def __getattr__(self, name: str) -> Any:
        if name in _FACTS:
            return getattr(self._memory, name)
        if name in _OTHERS and not callable(getattr(self._memory, name)):
            return ndarray(getattr(self._memory, name))
        if name in _OTHERS:
            return lambda *args, **named: self._other(getattr(self._memory, name), args, named)
        if name in _MAKERS:
            return lambda *args, **named: _now(getattr(self._memory, name), args, named)
        raise AttributeError(f"the fake GPU's arrays have no {name}")

    def _other(self, call: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> ndarray:
        changed = call(*args, **named)
        return ndarray(changed) if np.may_share_memory(changed, self._memory) else _now(call, args, named)

    @property
    def flags(self) -> Any:
        """How the array lies in memory."""
        flags = self._memory.flags
        return SimpleNamespace(c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous, owndata=flags.owndata)

    @property
    def data(self) -> Any:
        """Where the array begins, as `ptr`."""
        return SimpleNamespace(ptr=self._memory.ctypes.data)

    def view(self, dtype: DTypeLike) -> ndarray:
        """The same memory as another type."""
        return ndarray(self._memory.view(dtype))

    def fill(self, value: Any) -> None:
        """Hold `value` everywhere."""
        self[...] = value

    def get(self, stream: Stream | None = None, out: np.ndarray | None = None, blocking: bool = True) -> np.ndarray:
        """The values on the host, in `out`; they are there when the stream has come to it."""
        result = np.empty(self.shape, self.dtype) if out is None else out
        if out is not None:
            self._check(out, not blocking)
        stream = stream or get_current_stream()
        crossed["out"] += self.nbytes
        stream.add(lambda: np.copyto(result, self._memory))
        if blocking:
            stream.synchronize()
        return result

    def set(self, values: np.ndarray, stream: Stream | None = None) -> None:
        """Take the values of the host; with a stream they must stay until it has come to it."""
        self._check(values, stream is not None)
        crossed["in"] += self.nbytes
        kept = values if stream is not None else values.copy()
        (stream or get_current_stream()).add(lambda: np.copyto(self._memory, kept))

    def _check(self, host: np.ndarray, beside: bool) -> None:
        """Raise ValueError unless bytes can be copied as they lie, and be so beside the computing."""
        if (host.dtype, host.shape) != (self.dtype, self.shape):
            raise ValueError(f"{host.dtype} {host.shape} is copied to or from {self.dtype} {self.shape}")
        if not (host.flags.c_contiguous and self.flags.c_contiguous):
            raise ValueError("a copy without a pause needs arrays without gaps")
        if beside and not is_pinned(host):
            raise ValueError("a copy beside the computing needs pinned memory")

    def item(self) -> Any:
        """The one value."""
        return self.get().item()

    def __bool__(self) -> bool:
        return bool(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __len__(self) -> int:
        return len(self._memory)

    def __getitem__(self, key: Any) -> ndarray:
        parts = key if isinstance(key, tuple) else (key,)
        if all(isinstance(part, _VIEWS) for part in parts):
            return ndarray(self._memory[parts if Ellipsis in parts else (*parts, Ellipsis)])
        return _now(self._memory.__getitem__, (key,), {})  # type: ignore[no-any-return]

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, (list, tuple)):
            raise ValueError("a list is no array of the GPU: use device.from_host(array)")
        _soon(self._memory.__setitem__, (key, value), {})

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("an array of the GPU does not become one of NumPy by itself: use device.to_host(array)")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **named: Any) -> Any:
        if (out := named.get("out")) is None:
            return _now(getattr(ufunc, method), inputs, named)
        _soon(getattr(ufunc, method), inputs, named)
        return out[0] if len(out) == 1 else out

    def __array_function__(self, function: Any, _: Any, args: Any, named: Any) -> Any:
        return _now(function, args, named)


def _memory_of(value: Any) -> Any:
    """The arguments of a call with memory in the place of arrays; no array of the host may be among them."""
    if isinstance(value, ndarray):
        return value._memory
    if isinstance(value, (tuple, list)):
        return type(value)(map(_memory_of, value))
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("arrays of NumPy and of the GPU do not mix: use device.from_host(array)")
    return value


def _soon(call: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> None:
    plain, options = _memory_of(args), {name: _memory_of(value) for name, value in named.items()}
    get_current_stream().add(lambda: call(*plain, **options))


def _now(call: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """What makes a new array is done at once, after what was launched before."""
    get_current_stream().synchronize()
    made = call(*_memory_of(args), **{name: _memory_of(value) for name, value in named.items()})
    same = made is getattr(call, "__self__", None)  # astype may give what it has
    return ndarray(made) if same else _there(made)  # type: ignore[no-any-return]


def _there(made: Any) -> Any:
    if isinstance(made, (tuple, list)):
        return type(made)(map(_there, made))
    return ndarray(_counted(np.asarray(made))) if isinstance(made, (np.ndarray, np.generic)) else made


def _counted(memory: np.ndarray) -> np.ndarray:
    """New memory of the device in use; CUDARuntimeError where there is not so much."""
    device = Device().id
    check(device)
    if in_use[device] + memory.nbytes > float(described("memory", "inf")):
        get_current_stream().synchronize()  # what work before alone needs CuPy gives to the work after it
    if in_use[device] + memory.nbytes > float(described("memory", "inf")):
        raise OutOfMemoryError(f"Out of memory allocating {memory.nbytes} bytes")
    in_use[device] += memory.nbytes
    weakref.finalize(memory, in_use.subtract, {device: memory.nbytes})
    return memory


def empty(shape: Any, dtype: DTypeLike = float, order: Any = "C") -> ndarray:
    """A new array that holds nonsense."""
    memory = np.empty(shape, dtype, order)
    memory.ravel("K").view(np.uint8).fill(0xA5)
    return ndarray(_counted(memory))


def full(shape: Any, value: Any, dtype: DTypeLike | None = None) -> ndarray:
    """A new array that holds `value` when the stream has come to it."""
    array = empty(shape, dtype or np.asarray(value).dtype)
    array[...] = value
    return array


def zeros(shape: Any, dtype: DTypeLike = float) -> ndarray:
    """A new array of zeros."""
    return full(shape, 0, dtype)


def asarray(values: Any) -> ndarray:
    """The values as an array of the device."""
    if isinstance(values, ndarray):
        return values
    host = np.array(values, order="A")  # CuPy keeps Fortran's order, too
    host = host.astype(host.dtype.newbyteorder("="), copy=False)
    array = empty(host.shape, host.dtype, "C" if host.flags.c_contiguous else "F")
    crossed["in"] += host.nbytes
    get_current_stream().add(lambda: np.copyto(array._memory, host))
    return array


def asnumpy(array: Any) -> np.ndarray:
    """The values as an array of the host."""
    return array.get() if isinstance(array, ndarray) else np.asarray(array)


class RawModule:
    """CUDA C, compiled for the host."""

    def __init__(self, *, code: str, **_: Any):
        self._library = ctypes.CDLL(str(compiled(code)))

    def get_function(self, name: str) -> Callable[[tuple[int, ...], tuple[int, ...], tuple[Any, ...]], None]:
        """Launches a function. Arrays of NumPy count as memory of both: then it has run on return."""

        def start(grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
            memory = tuple(a._memory if isinstance(a, ndarray) else a for a in arguments)
            work = launch(self._library, name, grid, block, memory)
            stream = get_current_stream()
            check(stream.device, launching=True)
            stream.add(work)
            if any(isinstance(a, np.ndarray) for a in arguments):
                stream.synchronize()

        return start


class Device:
    """One of the devices; `use` makes it this thread's."""

    def __init__(self, index: int | None = None):
        self.id: int = getattr(_HERE, "device", 0) if index is None else index
        self.pci_bus_id = f"0000:{self.id:02X}:00.0"

    def use(self) -> Device:
        """Be this thread's device."""
        _HERE.device = self.id
        return self

    @property
    def mem_info(self) -> tuple[int, int]:
        """Bytes that are free, and all."""
        total = int(float(described("memory", str(1 << 40))))
        return total - in_use[self.id], total

    def synchronize(self) -> None:
        """Do all that was launched."""
        for stream in list(_STREAMS):
            stream.synchronize()


Stream.null = Stream()
cuda = SimpleNamespace(
    Stream=Stream,
    Event=Event,
    Device=Device,
    runtime=runtime,
    get_current_stream=get_current_stream,
    alloc_pinned_memory=alloc_pinned_memory,
)


def get_default_memory_pool() -> Any:
    """What is in use: nothing is kept for later."""
    return SimpleNamespace(free_all_blocks=lambda: None, total_bytes=lambda: in_use[Device().id])
