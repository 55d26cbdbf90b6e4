"""Fill a distributed array from a file in global order: each rank reads its own block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from anyrank.device.select import is_device_error
from anyrank.errors import UsageError
from anyrank.layout import Layout
from anyrank.numerics.strided import row_slices

#: The first bytes of files in the format of NumPy, and in the formats of netCDF before netCDF-4, which is HDF5.
_NUMPY, _CLASSIC = b"\x93NUMPY", (b"CDF\x01", b"CDF\x02", b"CDF\x05")
#: The number of datasets that an error lists.
_LISTED = 20


class Target(Protocol):
    """The attributes of a Field that a file is read into."""

    name: str
    layout: Layout
    dtype: np.dtype[Any]

    @property
    def local(self) -> Any:
        """The block of this rank without its halo."""

    def __setitem__(self, key: Any, values: Any) -> None: ...

    def check_writable(self) -> None:
        """Raise UsageError if the field may not be written."""


def read(field: Target, path: Path, name: str | None = None) -> None:
    """Fill the field from a dataset of a file. Collective; see `Field.read`."""
    world = field.layout.world
    with ExitStack() as stack:
        with world.raise_on_all_ranks(), _translated(path):
            field.check_writable()
            dataset = stack.enter_context(_opened(path, name or field.name, named=name is not None))
            _check(field, path, dataset)
        with world.raise_on_all_ranks(), _translated(path):  # values change only if all ranks can read
            read_block(dataset, field)


def read_block(dataset: Any, field: Any) -> None:
    """Read this rank's block of a dataset in pieces, so that only one piece is in memory twice. Not collective."""
    along, *others = field.layout.slices
    for rows in row_slices(field.local):
        part = slice(along.start + rows.start, min(along.start + rows.stop, along.stop)), *others
        field[rows] = dataset[part]


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Raise errors of the file system and of the libraries as UsageError."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if is_device_error(error):
            raise  # the GPU failed, not the file
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        raise UsageError(f"{path} cannot be read: {reason}. Give a complete file that all ranks can read.") from None


@contextmanager
def _opened(path: Path, name: str, named: bool) -> Iterator[Any]:
    """Open a dataset of HDF5 or netCDF-4, or the array of a .npy file. Raises UsageError, and errors of the file."""
    import h5py  # slow, and the process that starts ranks does not need it

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
        raise UsageError(f"{path} must be a file of HDF5, netCDF-4 or NumPy (.npy). Convert it to one of these.")


def _dataset(path: Path, file: Any, name: str) -> Any:
    dataset = file.get(name)
    if not hasattr(dataset, "shape"):  # a group, or nothing
        names: list[str] = []
        file.visititems(lambda each, item: names.append(each) if hasattr(item, "shape") else None)
        listed = ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
        raise UsageError(f"{path} has no dataset {name!r}. Use name=… for one of its {len(names)}: {listed or 'none'}.")
    packed = [attribute for attribute in ("scale_factor", "add_offset") if attribute in dataset.attrs]
    if packed:
        raise UsageError(
            f"{path}: {name} has the attribute {packed[0]}, so its values are packed and must be unpacked: "
            f"ncpdq -U {path} NEW.nc"
        )
    return dataset


def _check(field: Target, path: Path, dataset: Any) -> None:
    """Raise UsageError unless the dataset fits the field."""
    if dataset.shape != field.layout.shape:
        raise UsageError(
            f"field {field.name}: its shape is {field.layout.shape}, and that of the array in {path} is "
            f"{dataset.shape}. They must be equal: declare the field with that shape, or give another file or name."
        )
    if not np.can_cast(dataset.dtype, field.dtype, "same_kind"):
        raise UsageError(
            f"field {field.name}: the array in {path} is {dataset.dtype}, which {field.dtype} cannot hold (rule "
            f"'same_kind' of NumPy). Declare the field as {dataset.dtype}, or convert the file."
        )
