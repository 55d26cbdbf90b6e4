"""The format of a checkpoint file: how one rank lays it out, and its header.

docs/checkpoint-format.md describes the file for other software.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from anyrank.errors import CheckpointError, UsageError
from anyrank.field import Field
from anyrank.member import Scalar, Stored
from anyrank.provenance import anyrank_version
from anyrank.state import State
from anyrank.storage import checkpoint_folder
from anyrank.storage.durable import reserve
from anyrank.storage.hdf5 import contiguous
from anyrank.storage.seal import Extent, check_seal

FORMAT = "anyrank checkpoint"
VERSION = 1
#: The groups in the root of the file; the dimensions are beside them.
GROUPS = ("fields", "tables", "scalars", "provenance")
#: The name that the netCDF-4 format gives a dimension without coordinates.
_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable."
#: The alignment of large datasets, in bytes, so that ranks write whole pages.
_PAGE = 4096
#: An upper bound of the bytes that HDF5 writes besides the values. If the disk becomes full while HDF5 writes, the
#: process crashes at its end; therefore the space is reserved first.
_METADATA_BYTES = 1 << 16


@dataclass(frozen=True)
class Identity:
    """The run that a checkpoint belongs to; the parameters are JSON values.

    `lineage` has one entry for each branch from which the run descends, the first one first: see `branch.descent`.
    """

    program: str
    parameters: dict[str, Any]
    seed: int
    #: The parameters of which a checkpoint of the run may have a smaller value.
    extendable: tuple[str, ...] = ()
    lineage: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @classmethod
    def of(
        cls,
        program: str,
        parameters: Mapping[str, Any],
        seed: int,
        extendable: tuple[str, ...] = (),
        lineage: Sequence[Mapping[str, Any]] = (),
    ) -> Identity:
        """Return the identity with its values converted to JSON and back, so that they can be compared."""
        plain = json.loads(json.dumps([dict(parameters), [*lineage]], default=_plain))
        return cls(program, plain[0], int(seed), extendable, plain[1])


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)


@dataclass(frozen=True)
class Entry:
    """The description of a dataset in the file; only Scalars have a `value`."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    digest: int
    value: Any = None
    #: The names of its axes.
    dims: tuple[str, ...] = ()


@dataclass(frozen=True)
class Header:
    """The content of a checkpoint file without the values of its Fields."""

    step: int
    finished: bool
    identity: Identity
    entries: dict[str, Entry]
    #: The text attributes of the provenance.
    provenance: dict[str, str]
    #: The digest of the whole state, in hexadecimal.
    digest: str


def check_dims(state: State) -> None:
    """Raise UsageError if a checkpoint file cannot have axes of these names."""
    sizes: dict[str, tuple[int, str]] = {}
    for field in state.fields():
        if len(field.dims) != len(field.shape):
            raise UsageError(f"field {field.name}: dims {field.dims} must name each of its {len(field.shape)} axes.")
        for name, size in zip(field.dims, field.shape, strict=True):
            if not name or "/" in name or name in GROUPS:
                raise UsageError(
                    f"field {field.name}: dims has {name!r}, which no axis of a checkpoint can have: use "
                    f"a name without / that is none of {', '.join(GROUPS)}."
                )
            other, owner = sizes.setdefault(name, (size, field.name))
            if other != size:
                raise UsageError(
                    f"field {field.name}: dims names an axis of {size} {name!r}, which in field {owner} has "
                    f"{other}: axes that share a name share their size. Give one of them another name."
                )


def lay_out(
    path: Path, stored: Stored, step: int, identity: Identity, finished: bool, provenance: Mapping[str, Any]
) -> dict[str, Extent]:
    """Create the file with everything except the digests and the values of the Fields; raises OSError.

    Returns the byte offset and the size of each Field's values, which are in C order. Not collective.
    """
    with path.open("wb") as plain:
        reserve(plain.fileno(), _METADATA_BYTES)
    pages = {"alignment_threshold": 16 * _PAGE, "alignment_interval": _PAGE}
    with h5py.File(path, "w", locking=False, **pages) as file:
        file.attrs["format"] = FORMAT
        file.attrs["format_version"] = VERSION
        file.attrs["complete"] = False
        file.attrs["program"] = identity.program
        file.attrs["parameters"] = json.dumps(identity.parameters)
        file.attrs["seed"] = identity.seed
        file.attrs["step"] = step
        file.attrs["finished"] = finished
        if identity.lineage:
            file.attrs["lineage"] = json.dumps(identity.lineage)
        attributes = {name: json.dumps(v) if isinstance(v, dict) else v for name, v in provenance.items()}
        file.create_group("provenance").attrs.update(attributes)
        for group in ("scalars", "fields", "tables"):
            file.create_group(group)
        extents = {}
        for name, item in stored.items():
            if isinstance(item, Field):
                extents[name] = _lay_out_field(file, item)
            elif isinstance(item, Scalar):
                file[item.path] = np.array(item.value, item.dtype)
                _describe(file[item.path], item)
    with path.open("r+b") as plain:
        reserve(plain.fileno(), path.stat().st_size + _METADATA_BYTES)
    return extents


def _lay_out_field(file: h5py.File, field: Field) -> Extent:
    *groups, name = field.path.split("/")
    dataset = contiguous(file.require_group("/".join(groups)), name, field.shape, field.dtype)
    for axis, (dim, size) in enumerate(zip(field.dims, field.shape, strict=True)):
        if dim not in file:  # HDF5 allocates no space for a dataset without written values
            file.create_dataset(dim, (size,), ">f4").make_scale(f"{_NO_VARIABLE}{size:10d}")
        dataset.dims[axis].attach_scale(file[dim])
    _describe(dataset, field)
    if len(groups) == 1:  # a Field of the program, and not a column of a Table, which has no grid of ranks
        dataset.attrs["ranks"] = field.layout.grid
        dataset.attrs["borders"] = np.concatenate(field.layout.cuts).astype(np.int64)
    return dataset.id.get_offset() or 0, dataset.id.get_storage_size()


def _describe(dataset: h5py.Dataset, item: Field | Scalar) -> None:
    if item.unit:
        dataset.attrs["units"] = item.unit
    if item.description:
        dataset.attrs["long_name"] = item.description


def store_digests(path: Path, stored: Stored, digests: Mapping[str, str], whole: str) -> None:
    """Store the digests in a file that has all values, and mark it as complete. Raises OSError. Not collective."""
    with h5py.File(path, "r+", locking=False) as file:
        for name, digest in digests.items():
            file[stored[name].path].attrs["digest"] = digest
        file.attrs["digest"] = whole
        file.attrs["complete"] = True


def read_header(path: Path) -> Header:
    """Return the header of a checkpoint after checking its seal. Not collective.

    Raises CheckpointError if the file is damaged or incomplete, UsageError if its format is newer.
    """
    try:
        check_seal(path)
        with h5py.File(path, "r", locking=False) as file:
            return _header(path, file)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"it cannot be read: {error}") from error


def newest_valid(folder: Path) -> tuple[Path, Header] | None:
    """Return the newest checkpoint in a folder whose seal holds, with its header; None if there is none.

    A run may write and delete checkpoints meanwhile: if a listed one has gone, a newer one has replaced it.
    """
    gone = True
    while gone:
        gone = False
        for path in checkpoint_folder.checkpoint_files(folder):
            with suppress(CheckpointError):
                return path, read_header(path)
            gone = gone or not os.path.lexists(path)
    return None


def _header(path: Path, file: h5py.File) -> Header:
    file_format, version = file.attrs.get("format"), int(file.attrs.get("format_version", 0))
    if file_format != FORMAT:
        raise CheckpointError(f"it is not a checkpoint: its format is {file_format!r}, not {FORMAT!r}")
    if version > VERSION:
        raise UsageError(
            f"{path} has checkpoint format {version}, and this anyrank {anyrank_version()} reads formats up to "
            f"{VERSION}: install the anyrank that wrote it, {file['provenance'].attrs.get('anyrank')}, or newer."
        )
    attributes = file.attrs
    parameters, lineage = json.loads(attributes["parameters"]), json.loads(attributes.get("lineage", "[]"))
    identity = Identity(attributes["program"], parameters, int(attributes["seed"]), lineage=lineage)
    entries: dict[str, Entry] = {}
    for group in file.values():
        if isinstance(group, h5py.Group):
            group.visititems(lambda name, item: entries.update(_entry(name, item)))
    provenance = {name: text for name, text in file["provenance"].attrs.items() if isinstance(text, str)}
    step, finished, digest = int(attributes["step"]), bool(attributes["finished"]), str(attributes["digest"])
    return Header(step, finished, identity, entries, provenance, digest)


def _entry(name: str, item: h5py.Dataset | h5py.Group) -> dict[str, Entry]:
    if isinstance(item, h5py.Group):
        return {}
    value = None if item.shape else item[()].item()
    dims = tuple(scales[0].name.strip("/") for scales in item.dims if len(scales))
    return {name: Entry(item.name, item.dtype.str, item.shape, int(item.attrs["digest"], 16), value, dims)}
