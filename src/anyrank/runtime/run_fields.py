"""The Fields of a run for analysis in Python, read from a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from anyrank.errors import UsageError


class RunField:
    """A Field in a checkpoint, of which an index reads a part: `Run.field` returns it.

    Attributes
    ----------
    name, unit, description : str
        The name, the unit and the meaning, as declared.
    shape : tuple of int
        The global shape.
    dtype : dtype
        The type of the elements.
    dims : tuple of str
        The names of the axes.
    """

    def __init__(self, path: Path, name: str):
        self.name, self._path = name, path
        with self._dataset() as dataset:
            self.shape: tuple[int, ...] = dataset.shape
            self.dtype: np.dtype[Any] = dataset.dtype
            self.dims = tuple(scales[0].name.strip("/") for scales in dataset.dims)
            self.unit = str(dataset.attrs.get("units", ""))
            self.description = str(dataset.attrs.get("long_name", ""))

    @contextmanager
    def _dataset(self) -> Iterator[Any]:
        with h5py.File(self._path, "r", locking=False) as file:
            yield file["fields"][self.name]

    def __repr__(self) -> str:
        return f"RunField({self.name}, shape={self.shape}, dtype={self.dtype}, {self._path.name})"

    def __getitem__(self, key: Any) -> Any:
        with self._dataset() as dataset:
            return dataset[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[()], dtype)

    def to_xarray(self) -> Any:
        """Return the values as an `xarray.DataArray`, with the names of the axes, the unit and the meaning.

        An axis with the name of a Field of one axis has its values as coordinates.

        Raises
        ------
        UsageError
            If xarray is not installed.
        """
        xarray = import_xarray()
        with h5py.File(self._path, "r", locking=False) as file:
            fields = file["fields"]
            coords = {dim: (dim, fields[dim][()]) for dim in self.dims if dim in fields and fields[dim].ndim == 1}
        texts = {"units": self.unit, "long_name": self.description}
        attributes = {name: text for name, text in texts.items() if text}
        return xarray.DataArray(self[()], coords=coords, dims=self.dims, name=self.name, attrs=attributes)


def import_xarray() -> Any:
    """Return the module xarray; UsageError if it is not installed."""
    try:
        import xarray
    except ImportError:
        raise UsageError("xarray is not installed. Install it: pip install xarray h5netcdf") from None
    return xarray


class RunFields(Mapping[str, np.ndarray]):
    """The Fields of a checkpoint by name, as NumPy arrays; each is read on access."""

    def __init__(self, path: Path):
        self._path = path

    def field(self, name: str) -> RunField:
        """Return a Field without its values; KeyError if there is none of this name."""
        if name not in self._names():
            raise KeyError(f"{name!r} is not a field of {self._path}: its fields are {sorted(self)}")
        return RunField(self._path, name)

    def _names(self) -> list[str]:
        with h5py.File(self._path, "r", locking=False) as file:
            return list(file["fields"])

    def __getitem__(self, name: str) -> np.ndarray:
        array: np.ndarray = self.field(name)[()]
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())
