"""An emulated GPU: arrays in host memory behind the part of CuPy's interface that anyrank uses.

It runs the code paths of a GPU on machines without one, and fails at least where a GPU would fail. Its arrays are not
NumPy arrays and are not converted implicitly. Launched work waits in the queue of its stream and runs as late as
possible: when the host waits for it, or for later work that depends on it. A missing wait therefore shows as an old
result, and a missing event between two streams as the wrong order.

ANYRANK_SHIM describes the machine, for tests: `gpus=2 memory=1e9 lost=1 driver=12020 order=random:7`. With
`fails=N fault_file=FILE` a device is lost after N launches; FILE then names it, so that it stays lost in later
processes.
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
    STREAMS,
    THREAD,
    CUDARuntimeError,
    Device,
    OutOfMemoryError,
    alloc_pinned_memory,
    check,
    in_use,
    is_pinned,
    runtime,
    setting,
)
from anyrank.device.emulated.shim import compiled, launch

__version__ = "fake"
#: Bytes copied from the device to the host (`out`) and to the device (`in`).
copied: Counter[str] = Counter()
_LOCK = threading.RLock()
_NUMBERS = count()
_VIEW_INDICES = (type(None), slice, int, type(Ellipsis))
#: The members of arrays: attributes, views of the same memory (a copy if there is no view), and new arrays.
_ATTRIBUTES = ("dtype", "shape", "ndim", "size", "itemsize", "nbytes", "strides")
_VIEWS = ("T", "real", "imag", "reshape", "ravel", "transpose", "squeeze", "swapaxes")
_NEW_ARRAYS = ("copy", "astype", "min", "max", "any", "all", "sum", "mean", "prod", "clip", "round", "argmin", "argmax")


class Event:
    """A position in the queue of a stream."""

    def __init__(self, **_: Any) -> None:
        self.stream, self.position = Stream.null, 0

    def record(self, stream: Stream | None = None) -> None:
        """Move the event to the end of the stream's queue."""
        self.stream = stream or get_current_stream()
        self.position = self.stream.length

    def synchronize(self) -> None:
        """Run the work before the event."""
        self.stream.run(self.position)


class Stream:
    """A queue of work, which runs in order and only when something waits for it."""

    null: Stream

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False) -> None:
        self.length = self.completed = 0
        self.number, self.device = next(_NUMBERS), Device().id
        self._queue: dict[int, Callable[[], Any]] = {}
        STREAMS.add(self)

    def add(self, work: Callable[[], Any]) -> None:
        """Append work."""
        with _LOCK:
            self._queue[self.length] = work
            self.length += 1
            _run_some()

    def run(self, position: int) -> None:
        """Run the work before a position."""
        with _LOCK:
            while self.completed < position:
                work = self._queue.pop(self.completed)
                self.completed += 1
                work()

    def record(self, event: Event | None = None) -> Event:
        """Record an event at the end of the queue."""
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Run later work of this stream after the event."""
        stream, position = event.stream, event.position
        self.add(lambda: stream.run(position))

    def synchronize(self) -> None:
        """Run all work; raises CUDARuntimeError if the device is lost."""
        check(self.device)
        self.run(self.length)

    def use(self) -> Stream:
        """Make the stream current in this thread; raises CUDARuntimeError if another device is current."""
        if self is not Stream.null and self.device != Device().id:
            raise CUDARuntimeError("cudaErrorInvalidResourceHandle: invalid resource handle")
        THREAD.__dict__.setdefault("streams", {})[Device().id] = self
        return self

    def __enter__(self) -> Stream:
        self.use()
        _entered().append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _entered().pop()
        _entered()[-1].use()  # as in CuPy, this forgets the stream of an earlier `use`


_ORDER = setting("order", "late")
_RANDOM = random.Random(_ORDER)


def _run_some() -> None:
    """Run a random part of the work of each stream, if the order is random."""
    if _ORDER != "late":
        for stream in sorted(STREAMS, key=lambda stream: stream.number):
            stream.run(_RANDOM.randint(stream.completed, stream.length))


def _entered() -> list[Stream]:
    """Return the streams that this thread has entered, the innermost last."""
    streams: list[Stream] = THREAD.__dict__.setdefault("entered", {}).setdefault(Device().id, [Stream.null])
    return streams


def get_current_stream() -> Stream:
    """Return the current stream of this thread on its current device."""
    stream: Stream = THREAD.__dict__.setdefault("streams", {}).setdefault(Device().id, Stream.null)
    return stream


class ndarray(NDArrayOperatorsMixin):  # noqa: N801
    """An array of the device."""

    __slots__ = ("__weakref__", "_memory")

    def __init__(self, memory: np.ndarray):
        self._memory = memory

    def __getattr__(self, name: str) -> Any:
        if name in _ATTRIBUTES:
            return getattr(self._memory, name)
        if name in _VIEWS and not callable(getattr(self._memory, name)):
            return ndarray(getattr(self._memory, name))
        if name in _VIEWS:
            return lambda *args, **named: self._view(getattr(self._memory, name), args, named)
        if name in _NEW_ARRAYS:
            return lambda *args, **named: _run_now(getattr(self._memory, name), args, named)
        raise AttributeError(f"arrays of the emulated GPU have no {name}")

    def _view(self, call: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> ndarray:
        result = call(*args, **named)
        return ndarray(result) if np.may_share_memory(result, self._memory) else _run_now(call, args, named)

    @property
    def flags(self) -> Any:
        """The memory layout of the array."""
        flags = self._memory.flags
        return SimpleNamespace(c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous, owndata=flags.owndata)

    @property
    def data(self) -> Any:
        """The address of the array, as `ptr`."""
        return SimpleNamespace(ptr=self._memory.ctypes.data)

    def view(self, dtype: DTypeLike) -> ndarray:
        """View the same memory with another dtype."""
        return ndarray(self._memory.view(dtype))

    def fill(self, value: Any) -> None:
        """Set all elements to `value`."""
        self[...] = value

    def get(self, stream: Stream | None = None, out: np.ndarray | None = None, blocking: bool = True) -> np.ndarray:
        """Copy the values to the host, into `out`, in the order of the stream."""
        result = np.empty(self.shape, self.dtype) if out is None else out
        if out is not None:
            self._check(out, not blocking)
        stream = stream or get_current_stream()
        copied["out"] += self.nbytes
        stream.add(lambda: np.copyto(result, self._memory))
        if blocking:
            stream.synchronize()
        return result

    def set(self, values: np.ndarray, stream: Stream | None = None) -> None:
        """Copy values of the host to the device; if a stream is given, the caller must not change them before."""
        self._check(values, stream is not None)
        copied["in"] += self.nbytes
        source = values if stream is not None else values.copy()
        (stream or get_current_stream()).add(lambda: np.copyto(self._memory, source))

    def _check(self, host: np.ndarray, asynchronous: bool) -> None:
        """Raise ValueError unless the arrays match, are contiguous, and are pinned for an asynchronous copy."""
        if (host.dtype, host.shape) != (self.dtype, self.shape):
            raise ValueError(f"{host.dtype} {host.shape} is copied to or from {self.dtype} {self.shape}")
        if not (host.flags.c_contiguous and self.flags.c_contiguous):
            raise ValueError("a copy between the host and the GPU needs contiguous arrays")
        if asynchronous and not is_pinned(host):
            raise ValueError("an asynchronous copy needs pinned memory")

    def item(self) -> Any:
        """Return the value of an array with one element."""
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
        if all(isinstance(part, _VIEW_INDICES) for part in parts):
            return ndarray(self._memory[parts if Ellipsis in parts else (*parts, Ellipsis)])
        return _run_now(self._memory.__getitem__, (key,), {})  # type: ignore[no-any-return]

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, (list, tuple)):
            raise ValueError("a list is not an array of the GPU: use device.from_host(array)")
        if all(isinstance(part, _VIEW_INDICES) for part in (key if isinstance(key, tuple) else (key,))):
            np.broadcast_shapes(self._memory[key].shape, np.shape(_memory_of(value)))  # as in CuPy, an error at once
        _enqueue(self._memory.__setitem__, (key, value), {})

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("an array of the GPU is not converted to NumPy implicitly: use device.to_host(array)")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **named: Any) -> Any:
        if (out := named.get("out")) is None:
            return _run_now(getattr(ufunc, method), inputs, named)
        _enqueue(getattr(ufunc, method), inputs, named)
        return out[0] if len(out) == 1 else out

    def __array_function__(self, function: Any, _: Any, args: Any, named: Any) -> Any:
        return _run_now(function, args, named)


def _memory_of(value: Any) -> Any:
    """Return the arguments of a call with the memory of each GPU array; raises TypeError for an array of the host."""
    if isinstance(value, ndarray):
        return value._memory
    if isinstance(value, (tuple, list)):
        return type(value)(map(_memory_of, value))
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("arrays of NumPy and of the GPU do not mix: use device.from_host(array)")
    return value


def _enqueue(call: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> None:
    positional, options = _memory_of(args), {name: _memory_of(value) for name, value in named.items()}
    get_current_stream().add(lambda: call(*positional, **options))


def _run_now(call: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Run a call that returns a new array, after the work that was launched before."""
    get_current_stream().synchronize()
    result = call(*_memory_of(args), **{name: _memory_of(value) for name, value in named.items()})
    same = result is getattr(call, "__self__", None)  # astype may return the array itself
    return ndarray(result) if same else _on_device(result)  # type: ignore[no-any-return]


def _on_device(result: Any) -> Any:
    if isinstance(result, (tuple, list)):
        return type(result)(map(_on_device, result))
    return ndarray(_allocated(np.asarray(result))) if isinstance(result, (np.ndarray, np.generic)) else result


def _allocated(memory: np.ndarray) -> np.ndarray:
    """Count new memory of the current device; raises OutOfMemoryError if the device has too little free memory."""
    device = Device().id
    check(device)
    if in_use[device] + memory.nbytes > float(setting("memory", "inf")):
        get_current_stream().synchronize()  # frees memory that only earlier work of the stream uses, as CuPy does
    if in_use[device] + memory.nbytes > float(setting("memory", "inf")):
        raise OutOfMemoryError(f"Out of memory allocating {memory.nbytes} bytes")
    in_use[device] += memory.nbytes
    weakref.finalize(memory, in_use.subtract, {device: memory.nbytes})
    return memory


def empty(shape: Any, dtype: DTypeLike = float, order: Any = "C") -> ndarray:
    """Return a new array with undefined values: all bytes are 0xA5."""
    memory = np.empty(shape, dtype, order)
    memory.ravel("K").view(np.uint8).fill(0xA5)
    return ndarray(_allocated(memory))


def full(shape: Any, value: Any, dtype: DTypeLike | None = None) -> ndarray:
    """Return a new array, which the stream fills with `value`."""
    array = empty(shape, dtype or np.asarray(value).dtype)
    array[...] = value
    return array


def zeros(shape: Any, dtype: DTypeLike = float) -> ndarray:
    """Return a new array of zeros."""
    return full(shape, 0, dtype)


def asarray(values: Any) -> ndarray:
    """Return the values as an array of the device."""
    if isinstance(values, ndarray):
        return values
    host = np.array(values, order="A")  # as in CuPy, an array in Fortran order stays so
    host = host.astype(host.dtype.newbyteorder("="), copy=False)
    array = empty(host.shape, host.dtype, "C" if host.flags.c_contiguous else "F")
    copied["in"] += host.nbytes
    get_current_stream().add(lambda: np.copyto(array._memory, host))
    return array


def asnumpy(array: Any) -> np.ndarray:
    """Return the values as an array of the host."""
    return array.get() if isinstance(array, ndarray) else np.asarray(array)


class RawModule:
    """CUDA C code, compiled for the host."""

    def __init__(self, *, code: str, **_: Any):
        self._library = ctypes.CDLL(str(compiled(code)))

    def get_function(self, name: str) -> Callable[[tuple[int, ...], tuple[int, ...], tuple[Any, ...]], None]:
        """Return a call that launches a function; with NumPy arrays as arguments it also waits for the end."""

        def start(grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
            memory = tuple(a._memory if isinstance(a, ndarray) else a for a in arguments)
            work = launch(self._library, name, grid, block, memory)
            stream = get_current_stream()
            check(stream.device, launching=True)
            stream.add(work)
            if any(isinstance(a, np.ndarray) for a in arguments):
                stream.synchronize()

        return start


Stream.null = Stream()
cuda = SimpleNamespace(
    Stream=Stream,
    Event=Event,
    Device=Device,
    runtime=runtime,
    get_current_stream=get_current_stream,
    alloc_pinned_memory=alloc_pinned_memory,
)


def __getattr__(name: str) -> Any:
    """Return NumPy's function or constant of a name that this module does not define, such as `where` or `float32`."""
    member = None if name.startswith("_") else getattr(np, name, None)
    if member is None:
        raise AttributeError(f"the emulated GPU has no {name}")
    if not callable(member) or isinstance(member, type):
        return member
    return lambda *args, **named: _run_now(member, args, named)


def get_default_memory_pool() -> Any:
    """Return a memory pool that caches nothing."""
    return SimpleNamespace(free_all_blocks=lambda: None, total_bytes=lambda: in_use[Device().id])
