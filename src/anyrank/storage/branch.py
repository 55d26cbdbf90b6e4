"""Begin a run with the State of another run's checkpoint: a branch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import h5py

from anyrank.errors import CheckpointError, UsageError, of_all_ranks
from anyrank.field import Field
from anyrank.layout import Layout
from anyrank.member import Member, Scalar, StoredField
from anyrank.state import State
from anyrank.storage import checkpoint_folder
from anyrank.storage.format import Entry, Header, Identity, read_header
from anyrank.storage.read import Datasets, on_all_ranks
from anyrank.storage.regrid import axes_of, regrid


@dataclass(frozen=True)
class Origin:
    """The checkpoint that a branch begins with, as the user names it.

    `step` is None for the newest valid checkpoint of the run. `regrid` is the method for fields of another shape, empty
    if there may be none. `setup` sets the members in `allow_missing` if they are not in the checkpoint, or differ.
    """

    run: Path
    step: int | None = None
    regrid: str = ""
    allow_missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = [f"{self.run}" if self.step is None else f"{self.run}@{self.step}"]
        words += [f"--regrid {self.regrid}"] * bool(self.regrid)
        words += [f"--allow-missing {','.join(self.allow_missing)}"] * bool(self.allow_missing)
        return " ".join(words)

    @property
    def checkpoints(self) -> Path:
        """The folder of the run's checkpoints."""
        return self.run / "checkpoints"


@dataclass(frozen=True)
class Start:
    """The checkpoint that a branch begins with, as it was found: the same on all ranks."""

    origin: Origin
    path: Path
    header: Header
    #: The members that `setup` sets, the datasets that the program does not declare, and the interpolated fields.
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    regridded: tuple[str, ...]
    #: One message for each newer checkpoint that was refused.
    refused: list[str] = field(default_factory=list)


def descent(start: Start, identity: Identity) -> list[dict[str, Any]]:
    """Return the lineage of a branch: that of its origin, and an entry of its own.

    An entry has `run` (the folder), `program`, `step` and `digest` of the checkpoint; `changed`, the parameters with
    another value, each with `from` and `to` (one of them is absent if only one program has the parameter); `regrid`,
    the method, empty if no field was interpolated; and `missing`, the members that `setup` has set.
    """
    before, now = start.header.identity.parameters, identity.parameters
    pairs = {name: {"from": before.get(name), "to": now.get(name)} for name in sorted(before.keys() | now.keys())}
    changed = {
        name: {end: value for end, value in pair.items() if value is not None}
        for name, pair in pairs.items()
        if pair["from"] != pair["to"]
    }
    entry = {
        "run": str(start.origin.run),
        "program": start.header.identity.program,
        "step": start.header.step,
        "digest": start.header.digest,
        "changed": changed,
        "regrid": start.origin.regrid if start.regridded else "",
        "missing": [*start.missing],
    }
    return [*start.header.identity.lineage, entry]


def begin(origin: Origin, state: State) -> Start:
    """Find the checkpoint of a branch and load it into the declared state. Collective.

    If `setup` has to set missing members first, the values are only compared with their digests: call `load` after
    `setup`. Raises UsageError on all ranks if there is no such checkpoint, if it is damaged, or if it does not fit. If
    no step is given, a damaged checkpoint is skipped, and `Start.refused` tells it.
    """
    refused: list[str] = []
    for path in state.world.on_root(partial(_candidates, origin)):
        try:
            header = state.world.on_root(partial(read_header, path))
            start = _match(origin, path, header, state, refused)
            if start.missing:
                _compare_digests(start, state)
            else:
                load(start, state)
        except CheckpointError as error:
            refused.append(f"{path}: {error}")
            continue
        return start
    fix = "Give another step." if origin.step is not None else "Give another run."
    raise of_all_ranks(UsageError("--from: no checkpoint can be used:\n" + "\n".join([*refused, fix])))


def load(start: Start, state: State) -> None:
    """Restore the members that the checkpoint holds, and the step. Collective.

    Raises CheckpointError on all ranks if the file is damaged.
    """
    with ExitStack() as stack:
        datasets = Regridded(start, state, stack)
        for member in state.members.values():
            if member.name not in start.missing:
                member.load(datasets)
    state.step = start.header.step


class Regridded(Datasets):
    """The datasets of a checkpoint; a Field of another shape is interpolated when it is filled."""

    def __init__(self, start: Start, state: State, stack: ExitStack):
        path, entries = start.path, start.header.entries
        file = on_all_ranks(state.world, lambda: stack.enter_context(h5py.File(path, "r", locking=False)))
        super().__init__(state.world, file, entries)
        self._method = start.origin.regrid

    def fill(self, field: StoredField) -> None:
        """See `Source`."""
        if self.shape(field.name) == field.layout.shape:
            super().fill(field)
            return
        self.compare(field.name)
        dataset = self._file[self._entries[field.name].path]
        field[...] = on_all_ranks(self._world, lambda: regrid(dataset, field, self._method))  # type: ignore[arg-type]

    def compare(self, name: str) -> None:
        """Compare an array with its digest. Collective."""
        self.read(name, Layout.bricks(self.shape(name), self._world, "rows"))


def _compare_digests(start: Start, state: State) -> None:
    with ExitStack() as stack:
        datasets = Regridded(start, state, stack)
        for name, entry in start.header.entries.items():
            if entry.shape:
                datasets.compare(name)
            else:
                datasets.value(name)


def _candidates(origin: Origin) -> list[Path]:
    """Return the checkpoints that may be used, the newest first. Not collective."""
    paths = checkpoint_folder.checkpoint_files(origin.checkpoints)
    if not paths:
        what = "holds no checkpoint" if origin.run.is_dir() else "does not exist"
        raise UsageError(f"--from {origin.run} {what}. Give the folder of a run, or RUN@STEP for one of its steps.")
    if origin.step is None:
        return paths
    steps = sorted(map(checkpoint_folder.step_of, paths))
    if origin.step not in steps:
        raise UsageError(
            f"--from {origin.run}@{origin.step}: there is no checkpoint of this step. The run has those of the steps "
            f"{', '.join(map(str, steps))}. Use one of them; --keep and files *.keep keep more."
        )
    return [path for path in paths if checkpoint_folder.step_of(path) == origin.step]


def _match(origin: Origin, path: Path, header: Header, state: State, refused: list[str]) -> Start:
    """Compare the state with a checkpoint. Raises UsageError, on all ranks, that lists the differences."""
    entries, declared = header.entries, {name for member in state.members.values() for name in member.kinds()}
    members = {member.name: member for member in state.members.values() if member.kinds()}
    unknown = [name for name in origin.allow_missing if name not in members]
    if unknown:
        raise of_all_ranks(
            UsageError(f"--allow-missing {unknown[0]}: the state has no such member. It has {', '.join(members)}.")
        )
    differences = {name: [*_differences(origin, member, entries)] for name, member in members.items()}
    missing = tuple(name for name, lines in differences.items() if lines and name in origin.allow_missing)
    if lines := [line for name, lines in differences.items() if name not in missing for line in lines]:
        what = f"--from {origin.run}: the state of {path.name}, of the program {header.identity.program}, does not fit:"
        fixes = "--allow-missing NAMES leaves members to setup; --regrid METHOD interpolates other shapes."
        raise of_all_ranks(UsageError("\n".join([what, *(f"  {line}" for line in lines), fixes])))
    fields = [field for field in state.fields() if field.name in members and field.name not in missing]
    regridded = tuple(field.name for field in fields if field.shape != entries[field.name].shape)
    return Start(origin, path, header, missing, tuple(sorted(entries.keys() - declared)), regridded, refused)


def _differences(origin: Origin, member: Member, entries: Mapping[str, Entry]) -> Iterator[str]:
    """Yield the differences of a member from the checkpoint that hinder a branch."""
    kinds = member.kinds()
    for name in sorted(name for name in entries if name.startswith(f"{member.name}/") and name not in kinds):
        yield f"{name} is in the checkpoint, and not in the program"
    if origin.regrid and not isinstance(member, Field | Scalar):
        yield f"{member.name} is no field: --regrid cannot interpolate it"
    for name, kind in kinds.items():
        entry, (dtype, _, shape) = entries.get(name), kind.partition(" ")
        if entry is None:
            yield f"{name} is missing in the checkpoint"
        elif entry.dtype != dtype:
            yield f"{name} has the type {dtype}, and in the checkpoint {entry.dtype}"
        elif shape and shape != str(entry.shape):
            if not origin.regrid or not isinstance(member, Field):
                yield f"{name} has the shape {shape}, and in the checkpoint {entry.shape}"
            else:
                yield from _hindrances(origin.regrid, member, entry)


def _hindrances(method: str, field: Field, entry: Entry) -> Iterator[str]:
    """Yield the reasons why a field cannot be interpolated."""
    first, name = len(field.components), field.name
    if len(entry.shape) != len(field.shape) or entry.shape[:first] != field.components:
        yield f"{name} has the shape {field.shape}, and in the checkpoint {entry.shape}: other axes or components"
        return
    if method != "nearest" and field.dtype.kind not in "fc":
        yield f"{name} is {field.dtype}, which only --regrid nearest takes"
    walls = [dim.endswith("_face") for dim in entry.dims[first:]]
    if walls and walls != [axis in field.faces for axis in range(len(walls))]:
        yield f"{name} has points on other walls than in the checkpoint: {entry.dims}, and {field.dims}"
    for axis in axes_of(field, entry.shape):
        try:
            axis.check(name)
        except UsageError as error:
            yield str(error)
