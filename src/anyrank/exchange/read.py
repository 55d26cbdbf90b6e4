"""Fill a distributed array from a file in global order: each rank reads its own block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from anyrank.device.select import is_device_error
from anyrank.errors import UsageError, of_all_ranks
from anyrank.layout import Layout
from anyrank.numerics.strided import row_slices

#: The first bytes of files in the format of NumPy, and in the formats of netCDF before netCDF-4, which is HDF5.
_NUMPY, _CLASSIC = b"\x93NUMPY", (b"CDF\x01", b"CDF\x02", b"CDF\x05")
#: The number of datasets that an error lists.
_LISTED = 20
#: The files in the folder of a store of zarr, one of which is there.
_ZARR = ("zarr.json", ".zgroup", ".zmetadata", ".zarray")


class Target(Protocol):
    """The attributes of a Field that a file is read into."""

    name: str
    layout: Layout
    dtype: np.dtype[Any]
    dims: tuple[str, ...]

    @property
    def local(self) -> Any:
        """The block of this rank without its halo."""

    def __setitem__(self, key: Any, values: Any) -> None: ...

    def check_writable(self) -> None:
        """Raise UsageError if the field may not be written."""


def read(field: Target, path: Path, name: str | None = None, missing: float | None = None) -> None:
    """Fill the field from a dataset of a file. Collective; see `Field.read`."""
    world = field.layout.world
    with ExitStack() as stack:
        with world.raise_on_all_ranks(), translated(path):
            field.check_writable()
            dataset = stack.enter_context(opened(path, name or field.name, named=name is not None))
            check_fits(field, path, dataset, field.layout.shape, field.dims)
            values = Values(dataset, missing)
        with world.raise_on_all_ranks(), translated(path):  # values change only if all ranks can read
            read_block(values, field)
    if count := world.sum(values.missing):
        raise of_all_ranks(missing_values(f"field {field.name}", path, count))


class Values:
    """The values of a dataset, in which missing values are counted, and replaced if that is asked for.

    Missing are those that equal the attribute `_FillValue` or `missing_value`, and NaN.
    """

    def __init__(self, dataset: Any, replacement: float | None = None):
        self._dataset, self._replacement = dataset, replacement
        attributes = getattr(dataset, "attrs", {})
        marks = [attributes[name] for name in ("_FillValue", "missing_value") if name in attributes]
        self._marks = np.unique(np.concatenate([np.ravel(mark) for mark in marks])) if marks else np.array([])
        #: The number of missing values that were read and not replaced.
        self.missing = 0

    def __getitem__(self, part: Any) -> np.ndarray:
        values: np.ndarray = np.asarray(self._dataset[part])
        absent = np.isnan(values) if values.dtype.kind in "fc" else np.zeros(values.shape, bool)
        if len(self._marks):
            absent |= np.isin(values, self._marks.astype(values.dtype))
        if not absent.any():
            return values
        if self._replacement is None:
            self.missing += int(absent.sum())
            return values
        kind = values.dtype if values.dtype.kind in "fc" else np.result_type(values.dtype, np.float64)
        replaced: np.ndarray = np.where(absent, np.asarray(self._replacement, kind), values)
        return replaced


def missing_values(what: str, path: Path, count: int) -> UsageError:
    """Return the error for missing values in a file."""
    return UsageError(
        f"{what}: {path} has {count} missing values (NaN, or the _FillValue of the file) in it. Fill them in the file, "
        "or give missing=VALUE, which replaces them: missing=0.0, or missing=math.nan to keep NaN."
    )


def read_block(dataset: Any, field: Any) -> None:
    """Read this rank's block of a dataset in pieces, so that only one piece is in memory twice. Not collective."""
    along, *others = field.layout.slices
    for rows in row_slices(field.local):
        part = slice(along.start + rows.start, min(along.start + rows.stop, along.stop)), *others
        field[rows] = dataset[part]


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise errors of the file system and of the libraries as UsageError."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if is_device_error(error):
            raise  # the GPU failed, not the file
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        raise UsageError(f"{path} cannot be read: {reason}. Give a complete file that all ranks can read.") from None


@contextmanager
def opened(path: Path, name: str, named: bool) -> Iterator[Any]:
    """Open a dataset of HDF5, netCDF-4 or zarr, or the array of a .npy file.

    Raises UsageError, and errors of the file.
    """
    import h5py  # slow, and the process that starts ranks does not need it

    if any((path / part).is_file() for part in _ZARR):
        content = _zarr(path)
        yield content if hasattr(content, "shape") else _dataset(path, content, name)
        return
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(_CLASSIC):
        raise UsageError(
            f"{path} is netCDF-3, which cannot be read in blocks by several ranks. Convert it to netCDF-4: "
            f"nccopy -k nc4 {path} NEW.nc"
        )
    if start.startswith(_NUMPY):
        if named:
            raise UsageError(f"{path}: name={name!r} must be left out: a .npy file holds one array, without a name.")
        yield np.load(path, mmap_mode="r", allow_pickle=False)
    elif h5py.is_hdf5(path):
        with h5py.File(path, "r", locking=False) as content:
            yield _dataset(path, content, name)
    else:
        raise UsageError(
            f"{path} must be a file of HDF5, netCDF-4 or NumPy (.npy), or a store of zarr. Convert it to one of these."
        )


def _zarr(path: Path) -> Any:
    """Open a store of zarr, of which each rank reads its own chunks."""
    try:
        from zarr import open as open_store
    except ImportError:
        raise UsageError(
            f"{path} is a store of zarr, and zarr is not installed. Install it: pip install zarr"
        ) from None
    return open_store(path, mode="r")


def dims_of(dataset: Any) -> tuple[str, ...]:
    """Return the names of the axes of a dataset; empty if it has none."""
    if hasattr(dataset, "metadata"):  # zarr
        names = getattr(dataset.metadata, "dimension_names", None) or dataset.attrs.get("_ARRAY_DIMENSIONS", ())
        return tuple(str(name) for name in names)
    scales = [*getattr(dataset, "dims", ())]
    return tuple(each[0].name.rpartition("/")[2] for each in scales) if all(len(each) for each in scales) else ()


def _dataset(path: Path, file: Any, name: str) -> Any:
    dataset = file.get(name)
    if not hasattr(dataset, "shape"):  # a group, or nothing
        names: list[str] = []
        if hasattr(file, "visititems"):
            file.visititems(lambda each, item: names.append(each) if hasattr(item, "shape") else None)
        else:
            names = [each for each, _ in file.arrays()]
        listed = ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
        raise UsageError(f"{path} has no dataset {name!r}. Use name=… for one of its {len(names)}: {listed or 'none'}.")
    packed = [attribute for attribute in ("scale_factor", "add_offset") if attribute in dataset.attrs]
    if packed:
        raise UsageError(
            f"{path}: {name} has the attribute {packed[0]}, so its values are packed and must be unpacked: "
            f"ncpdq -U {path} NEW.nc"
        )
    return dataset


def check_fits(field: Target, path: Path, dataset: Any, shape: tuple[int, ...], dims: tuple[str, ...]) -> None:
    """Raise UsageError unless the dataset has this shape and order of axes, and a dtype that the field can hold."""
    if tuple(dataset.shape) != shape:
        raise UsageError(
            f"field {field.name}: its shape is {shape}, and that of the array in {path} is "
            f"{dataset.shape}. They must be equal: declare the field with that shape, or give another file or name."
        )
    names = dims_of(dataset)
    if names != dims and sorted(names) == sorted(dims):
        raise UsageError(
            f"field {field.name}: its axes are {', '.join(dims)}, and those of the array in {path} {', '.join(names)}. "
            "Transpose the array in the file."
        )
    if not np.can_cast(dataset.dtype, field.dtype, "same_kind"):
        raise UsageError(
            f"field {field.name}: the array in {path} is {dataset.dtype}, which {field.dtype} cannot hold (rule "
            f"'same_kind' of NumPy). Declare the field as {dataset.dtype}, or convert the file."
        )
