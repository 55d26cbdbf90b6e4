"""The format of frames.nc: netCDF-4 with the CF conventions, laid out before its frames are written.

netCDF-4 is HDF5 with dimension scales. Every variable is one contiguous dataset with space for all frames, so that a
frame has a fixed offset and the structure of the file never changes. `step` has −1 for frames that are not complete:
its value is written last. docs/outputs.md describes the file for users.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from anyrank.errors import UsageError
from anyrank.output.variables import BOUNDS, STEP, Axis, Variable
from anyrank.storage.durable import reserve
from anyrank.storage.format import Identity
from anyrank.storage.hdf5 import contiguous

CONVENTIONS = "CF-1.11"
#: The name that the netCDF-4 format gives a dimension without coordinates.
_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable."
#: The number of a dimension in netCDF-4.
_NUMBER = "_Netcdf4Dimid"
_PAGE = 4096
#: An upper bound of the bytes of the structure that are in use; if the disk is full, HDF5 would end the process.
_METADATA_BYTES = 1 << 18


@dataclass(frozen=True)
class Plan:
    """What frames.nc has: the variables, the interval in steps, and the run that they belong to."""

    variables: tuple[Variable, ...]
    every: int
    identity: Identity
    #: The step at which the run began: a branch continues from the step of its checkpoint.
    first: int = 0

    def describe(self) -> str:
        """Return the variables as text, for comparison with those of a file."""
        items = []
        for variable in self.variables:
            axes = [[axis.dim, axis.first, axis.count, axis.step, axis.averaged] for axis in variable.axes]
            items.append([variable.name, variable.dtype.str, axes])
        return json.dumps(items)

    def names(self) -> str:
        """Return the names of the variables, for messages."""
        return ", ".join(variable.name for variable in self.variables)


@dataclass(frozen=True)
class Offsets:
    """The offsets in bytes of the steps and of the first frame of each variable."""

    step: int
    variables: Mapping[str, int]


@dataclass(frozen=True)
class Existing:
    """What a frames.nc of this run has: the steps of its slots, −1 where no frame is complete."""

    steps: tuple[int, ...]
    every: int
    #: Whether new frames can be written into it as it is, with the same structure as a new file.
    offsets: Offsets | None


def lay_out(path: Path, plan: Plan, steps: Sequence[int], chunked: bool = False) -> Offsets:
    """Create the file without the values of its frames; `steps` has −1 for frames that are not complete.

    With `chunked`, the values are compressed chunks, to be written later; then the offsets are not valid. Not
    collective. Raises OSError.
    """
    with path.open("wb") as plain:
        reserve(plain.fileno(), _METADATA_BYTES)
    pages = {"alignment_threshold": 16 * _PAGE, "alignment_interval": _PAGE}
    with h5py.File(path, "w", locking=False, track_order=True, **pages) as file:
        identity = plan.identity
        _text(file, "Conventions", CONVENTIONS)
        _text(file, "title", f"frames of {identity.program}")
        _text(file, "source", "anyrank")
        _text(file, "program", identity.program)
        _text(file, "parameters", json.dumps(identity.parameters))
        file.attrs["seed"] = identity.seed
        file.attrs["interval"] = plan.every
        _text(file, "frames", plan.describe())
        number = _dimension(file, STEP, np.array(steps, "<i8"))
        _text(number, "long_name", "number of steps")
        _text(number, "units", "1")
        for variable in plan.variables:
            for axis in variable.axes:
                _coordinate(file, axis)
        for variable in plan.variables:
            _variable(file, variable, len(steps), chunked)
        return Offsets(*_offsets(file, plan))


def _offsets(file: h5py.File, plan: Plan) -> tuple[int, dict[str, int]]:
    return _offset(file[STEP]), {variable.name: _offset(file[variable.name]) for variable in plan.variables}


def _offset(dataset: h5py.Dataset) -> int:
    return int(dataset.id.get_offset() or 0)


def _dimension(file: h5py.File, name: str, values: np.ndarray) -> h5py.Dataset:
    """Create a dimension with its coordinate variable."""
    count = sum(_NUMBER in item.attrs for item in file.values())
    dataset = contiguous(file, name, values.shape, values.dtype)
    dataset[...] = values
    dataset.make_scale(name)
    dataset.attrs[_NUMBER] = np.int32(count)
    return dataset


def _coordinate(file: h5py.File, axis: Axis) -> None:
    """Create the dimension of an axis with its coordinates and the bounds of its cells, unless the file has it."""
    if axis.single and axis.spacing:
        _scalar_coordinate(file, axis)
    if not axis.kept or axis.dim in file:
        return
    dataset = _dimension(file, axis.dim, axis.values)
    _describe_axis(dataset, axis)
    if not axis.spacing:
        return
    if BOUNDS not in file:
        count = sum(_NUMBER in item.attrs for item in file.values())
        pair = file.create_dataset(BOUNDS, (2,), ">f4")
        pair.make_scale(f"{_NO_VARIABLE}{2:10d}")
        pair.attrs[_NUMBER] = np.int32(count)
    _text(dataset, "bounds", f"{axis.dim}_{BOUNDS}")
    bounds = contiguous(file, f"{axis.dim}_{BOUNDS}", (axis.count, 2), np.dtype("<f8"))
    bounds[...] = axis.bounds
    for number, name in enumerate((axis.dim, BOUNDS)):
        bounds.dims[number].attach_scale(file[name])


def _scalar_coordinate(file: h5py.File, axis: Axis) -> None:
    if axis.index_name not in file:
        dataset = contiguous(file, axis.index_name, (), axis.values.dtype)
        dataset[()] = axis.values[0]
        _describe_axis(dataset, axis)


def _describe_axis(dataset: h5py.Dataset, axis: Axis) -> None:
    _text(dataset, "units", axis.unit)
    _text(dataset, "long_name", f"{axis.name}, index {axis.first}" if axis.single else axis.name)
    if axis.name in ("x", "y", "z") and not axis.single:
        _text(dataset, "axis", axis.name.upper())


def _variable(file: h5py.File, variable: Variable, frames: int, chunked: bool) -> None:
    shape = (frames, *variable.shape)
    if chunked:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk(chunk_of(variable))
        properties.set_shuffle()
        properties.set_deflate(LEVEL)
        properties.set_obj_track_times(False)
        kind, space = h5py.h5t.py_create(variable.dtype, logical=True), h5py.h5s.create_simple(shape)
        dataset = h5py.Dataset(h5py.h5d.create(file.id, variable.name.encode(), kind, space, properties))
    else:
        dataset = contiguous(file, variable.name, shape, variable.dtype)
    kept = [axis for axis in variable.axes if axis.kept]
    for number, name in enumerate((STEP, *(axis.dim for axis in kept))):
        dataset.dims[number].attach_scale(file[name])
    attributes = {"units": variable.field.unit, "long_name": variable.description}
    attributes |= {"cell_methods": variable.cell_methods}
    single = (axis.index_name for axis in variable.axes if axis.single and axis.spacing)
    attributes["coordinates"] = " ".join(single)
    for name, text in attributes.items():
        _text(dataset, name, text)
    if variable.field.dtype.kind == "b" and variable.dtype.kind == "i":
        _text(dataset, "dtype", "bool")  # for xarray; the other two are those of the CF conventions
        dataset.attrs["flag_values"] = np.array([0, 1], np.int8)
        _text(dataset, "flag_meanings", "false true")


def _text(item: h5py.File | h5py.Dataset, name: str, text: str) -> None:
    """Store text of a fixed length as an attribute, unless it is empty: all netCDF readers know this type."""
    if text:
        data = text.encode()
        item.attrs.create(name, np.bytes_(data), dtype=h5py.string_dtype("utf-8", len(data)))


def _read_text(file: h5py.File, name: str) -> str:
    value = file.attrs[name]
    return value.decode() if isinstance(value, bytes) else str(value)


#: The level of zlib, and the largest size of a chunk in bytes, but for a row that is longer.
LEVEL, CHUNK_BYTES = 4, 1 << 22


def chunk_of(variable: Variable) -> tuple[int, ...]:
    """Return the shape of a compressed chunk: a part of one frame that is contiguous in it."""
    shape, size = list(variable.shape), variable.nbytes
    for axis, count in enumerate(shape):
        if size <= CHUNK_BYTES or axis == len(shape) - 1:
            break
        row = size // count
        shape[axis] = max(1, min(count, CHUNK_BYTES // row))
        size = row * shape[axis]
    return (1, *shape)


def read_existing(path: Path, plan: Plan) -> Existing | None:
    """Return what the file has; None if there is no file. Not collective.

    Raises UsageError if it cannot be read, is not the output of this run, or has other variables.
    """
    if not path.exists():
        return None
    try:
        if not path.is_file():  # opening a FIFO would never return
            raise ValueError("it is not a file")
        with h5py.File(path, "r", locking=False) as file:
            return _existing(path, file, plan)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"{path} cannot be read ({error}). Repair it, or move it away: the run then continues without its frames."
        ) from None


def _existing(path: Path, file: h5py.File, plan: Plan) -> Existing:
    identity, frames = plan.identity, _read_text(file, "frames")
    parameters = json.loads(_read_text(file, "parameters"))
    own, other = (
        {k: v for k, v in p.items() if k not in identity.extendable} for p in (identity.parameters, parameters)
    )
    if (_read_text(file, "program"), int(file.attrs["seed"]), other) != (identity.program, identity.seed, own):
        raise UsageError(f"{path} is no output of this run. Move it away, or use another --out.")
    if frames != plan.describe():
        names = ", ".join(item[0] for item in json.loads(frames))
        raise UsageError(
            f"{path} has frames of {names}, and the options now ask for {plan.names()}, or for other parts or types: "
            "the variables of frames.nc cannot change. Omit --frames, --frames-stride and --frames-type, or move the "
            "file away: the run then continues without its frames."
        )
    steps = tuple(int(step) for step in file[STEP][...])
    usable = parameters == identity.parameters and file.attrs["interval"] == plan.every
    usable = usable and all(file[variable.name].chunks is None for variable in plan.variables)
    return Existing(steps, int(file.attrs["interval"]), Offsets(*_offsets(file, plan)) if usable else None)


def read_frame(file: h5py.File, name: str, slot: int, piece: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the values of a frame in pieces of about `piece` bytes, each with its offset in the frame in bytes."""
    dataset = file[name]
    shape = dataset.shape[1:]
    if not shape:
        yield 0, np.array(dataset[slot], dataset.dtype).reshape(1)
        return
    row = dataset.dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
    rows = max(1, piece // row)
    for first in range(0, shape[0], rows):
        yield first * row, np.ascontiguousarray(dataset[slot, first : first + rows])
