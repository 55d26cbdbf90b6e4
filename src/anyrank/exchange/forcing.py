"""Forcing: values that depend on the time, read from a file while the steps go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from anyrank.errors import AnyrankError, UsageError, of_all_ranks
from anyrank.exchange.read import Values, check_fits, dims_of, missing_values, opened, translated
from anyrank.world import World


class Like(Protocol):
    """The attributes of a Field on whose points a Forcing has values."""

    name: str
    layout: Any
    dtype: np.dtype[Any]
    dims: tuple[str, ...]
    device: Any

    @property
    def local(self) -> Any:
        """The block of this rank without its halo."""

    def __setitem__(self, key: Any, values: Any) -> None: ...

    def check_writable(self) -> None:
        """Raise UsageError if the field may not be written."""


class Forcing:
    """Values of a file that depend on the time, interpolated linearly: `State.forcing` creates it.

    It is no part of a checkpoint: its values are a function of the time. Those of the next time in the file are read in
    a thread, while the steps go on.

    Attributes
    ----------
    name : str
        The name in the State.
    times : ndarray
        The times of the file, float64, in its own unit.

    Examples
    --------
    >>> np.save("heating.npy", np.array([[0.0, 0.0], [1.0, 3.0], [2.0, 6.0]]))
    >>> state = State(World())
    >>> T = state.field("T", (2,))
    >>> q = state.forcing("heating.npy", "q", like=T, times=[0.0, 10.0, 20.0])
    >>> q.at(2.5)
    array([0.25, 0.75])
    """

    def __init__(
        self, world: World, path: Path, name: str, like: Like | None, times: ArrayLike | str | None, until: float | None
    ):
        self.name, self.world = name.rpartition("/")[2], world
        self._path, self._dataset, self._like = path, name, like
        self._blocks: dict[int, Any] = {}
        self._reading: _Reading | None = None
        with world.raise_on_all_ranks(), translated(path), opened(path, name, named=False) as dataset:
            self.times = self._times(dataset, times)
            self._check(dataset)
        if until is not None and not until <= self.times[-1]:
            raise of_all_ranks(
                UsageError(
                    f"forcing {self.name}: {path} ends at the time {self.times[-1]}, and the run needs it until "
                    f"{until}. Give a longer file, or fewer steps."
                )
            )

    def _times(self, dataset: Any, given: ArrayLike | str | None) -> np.ndarray:
        values = given
        if given is None or isinstance(given, str):
            values = self._coordinate(dataset, given)
        try:
            times = np.asarray(values, np.float64)
        except (ValueError, TypeError):
            times = np.array(np.nan)
        if times.shape != dataset.shape[:1] or not np.isfinite(times).all() or not (np.diff(times) > 0).all():
            raise UsageError(
                f"forcing {self.name}: the times must be finite numbers that increase, one for each of the "
                f"{dataset.shape[:1]} of {self._path}. Give times=[…], or the name of the dataset that has them."
            )
        return times

    def _coordinate(self, dataset: Any, given: str | None) -> Any:
        """Return the values of the coordinate of the first axis, in the file of the dataset."""
        name = given or next(iter(dims_of(dataset)), "")
        if not name:
            return None
        with opened(self._path, name, named=False) as found:
            if str(getattr(found, "attrs", {}).get("NAME", b"")).find("not a netCDF variable") >= 0:
                return None  # a dimension without values
            return found[()]

    def _check(self, dataset: Any) -> None:
        like = self._like
        if like is None and dataset.ndim != 1:
            raise UsageError(
                f"forcing {self.name}: {self._path} has values of the shape {dataset.shape[1:]} at each time. Give "
                "like=FIELD for the field that has their shape."
            )
        if like is not None:
            shape, names = (len(self.times), *like.layout.shape), dims_of(dataset)
            check_fits(like, self._path, dataset, shape, (*names[:1], *like.dims))
        kind = np.dtype(dataset.dtype if like is None else like.dtype)
        if kind.kind not in ("fiu" if like is None else "fc"):
            raise UsageError(f"forcing {self.name}: values of the type {kind} cannot be interpolated. Use float64.")

    def at(self, time: float) -> Any:
        """Return the values at a time. Collective: all ranks ask for the same time.

        Between two times a and b of the file the values are (1 − w) f(a) + w f(b) with w = (time − a)/(b − a), computed
        in the type of the field. They do not depend on the ranks, or on the times that were asked before.

        Parameters
        ----------
        time : float
            The time in the unit of the file, for instance `state.step * dt`.

        Returns
        -------
        array or float
            A new array of this rank's block, as `field.local` of the field `like`; a number for values without axes.

        Raises
        ------
        AnyrankError
            On all ranks, if the time is before the first one of the file or after the last one, the file cannot be
            read, or values are missing.
        """
        times = self.times
        if not times[0] <= time <= times[-1]:
            raise of_all_ranks(
                AnyrankError(
                    f"forcing {self.name}: {self._path} has the times {times[0]} to {times[-1]}, and the program asks "
                    f"for {time}. Give a longer file, or fewer steps."
                )
            )
        first = min(int(np.searchsorted(times, time, "right")) - 1, max(len(times) - 2, 0))
        weight = float((time - times[first]) / (times[first + 1] - times[first])) if len(times) > 1 else 0.0
        last = first + (weight > 0)
        self._fetch(first, last)
        a, b = self._blocks[first], self._blocks[last]
        if weight in (0.0, 1.0):
            return b.copy() if self._like is not None else float(b)
        values = a * (1 - weight) + b * weight
        return values if self._like is not None else float(values)

    def _fetch(self, first: int, last: int) -> None:
        """Hold the values of these times, and begin to read those of the next one. Collective."""
        self._blocks = {index: block for index, block in self._blocks.items() if first <= index <= first + 1}
        for index in range(first, last + 1):
            if index not in self._blocks:
                self._blocks[index] = self._wait(index)
        following = last + 1
        if following < len(self.times) and (self._reading is None or self._reading.index != following):
            self._reading = _Reading(following, lambda: self._read(following))

    def _wait(self, index: int) -> Any:
        """Return the values of a time, from the thread if it reads them. Collective."""
        with self.world.raise_on_all_ranks(), translated(self._path):
            reading = self._reading if self._reading is not None and self._reading.index == index else None
            values, missing = reading.result() if reading is not None else self._read(index)
        if count := self.world.sum(missing):
            raise of_all_ranks(
                missing_values(f"forcing {self.name} at the time {self.times[index]}", self._path, count)
            )
        return values if self._like is None else self._like.device.from_host(values)

    def _read(self, index: int) -> tuple[Any, int]:
        """Return this rank's values of a time, and the number of missing ones. Not collective; in a thread."""
        with opened(self._path, self._dataset, named=False) as dataset:
            values, like = Values(dataset), self._like
            if like is None:  # all ranks read it, and one of them counts
                number = np.float64(values[index : index + 1][0])
                return number, values.missing if self.world.rank == 0 else 0
            part = slice(index, index + 1), *like.layout.slices
            return np.ascontiguousarray(values[part][0], like.dtype), values.missing

    @property
    def nbytes(self) -> int:
        """See `Member`: the values of three times."""
        return 0 if self._like is None else 3 * int(np.prod(self._like.layout.local_shape)) * self._like.dtype.itemsize

    def describe(self) -> str:
        """See `Member`."""
        like = "" if self._like is None else f" at the points of {self._like.name}"
        times = f"{len(self.times)} times, hash {blake2b(self.times.tobytes(), digest_size=8).hexdigest()}"
        return f"forcing {self._dataset} of {self._path.name}: {times}{like}"

    def kinds(self) -> Mapping[str, str]:
        """See `Member`: a checkpoint does not hold it."""
        return {}

    def stored(self) -> Mapping[str, Any]:
        """See `Member`."""
        return {}

    def load(self, source: Any) -> None:
        """See `Member`."""

    def digest(self) -> int:
        """See `Member`: it has no state."""
        return 0


class _Reading:
    """The values of one time, which a thread reads."""

    def __init__(self, index: int, read: Callable[[], tuple[Any, int]]):
        self.index, self._read = index, read
        self._values: Any = None
        self._error: Exception | None = None
        # A daemon does not keep a process alive that ends.
        self._thread = Thread(target=self._run, name="anyrank forcing", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._values = self._read()
        except Exception as error:
            self._error = error

    def result(self) -> Any:
        """Wait for the values; raises the error of the thread."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._values


class WithForcing:
    """The method of a State that declares a Forcing."""

    world: World

    def forcing(
        self,
        path: Path | str,
        name: str,
        *,
        like: Any = None,
        times: ArrayLike | str | None = None,
        until: float | None = None,
    ) -> Forcing:
        """Return new values that depend on the time, from a file with a leading axis of time. Collective.

        Parameters
        ----------
        path : path
            A file of HDF5, netCDF-4 or NumPy (`.npy`), or a store of zarr, that all ranks can read.
        name : str
            The path of the dataset; its last part is the name in the State. Of a `.npy` file, only the latter.
        like : Field, optional
            The field whose shape, axes and type the values have at each time. Without it, they are numbers.
        times : array_like or str, optional
            The times, which increase; or the dataset that has them. By default the coordinate of the first axis.
        until : float, optional
            The last time that the program will ask for, such as `self.steps * self.dt`.

        Returns
        -------
        Forcing
            The values: `state.NAME.at(time)`.

        Raises
        ------
        UsageError
            On all ranks, if the file cannot be read or does not fit, or ends before `until`.
        """
        forcing: Forcing = self.add(Forcing(self.world, Path(path), name, like, times, until))
        return forcing

    def add(self, member: Any) -> Any:
        """See `State.add`."""
        raise NotImplementedError
