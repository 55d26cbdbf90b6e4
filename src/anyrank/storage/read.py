"""Reading: the newest checkpoint that every rank accepts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from anyrank.device.find import is_device_error
from anyrank.errors import CheckpointError, UsageError, of_all_ranks
from anyrank.field import Field
from anyrank.layout import Layout
from anyrank.member import Block
from anyrank.numerics.digest import hexadecimal, local_digest
from anyrank.provenance import changes
from anyrank.state import State
from anyrank.storage import keep
from anyrank.storage.format import Entry, Header, Identity, read_header
from anyrank.storage.staging import pieces
from anyrank.world import World

T = TypeVar("T")


@dataclass(frozen=True)
class Restored:
    """What was restored, one message for each newer checkpoint that was refused, and what changed since."""

    step: int
    path: Path
    finished: bool
    refused: list[str]
    #: Where the file was written with another program, anyrank or NumPy than this run's.
    changes: list[str]


def restore(folder: Path, state: State, identity: Identity, refused: dict[Path, str]) -> Restored | None:
    """Put the newest good checkpoint of the folder into the state; None where there is none. Collective.

    Each newer one that was refused is put into `refused`, with a message.

    A checkpoint is taken if every rank could read its part and every digest holds in the present layout.
    Raises UsageError where it belongs to another run or a newer format, and CheckpointError, which names
    each file, where all are damaged; the state's values are then unspecified.
    """
    paths = state.world.on_root(partial(keep.found, folder))
    for path in paths:
        try:
            header = _take(path, state, identity)
        except CheckpointError as error:
            refused[path] = f"{path}: {error}"
            continue
        changed = changes(state.world, header.provenance)
        return Restored(header.step, path, header.finished, [*refused.values()], changed)
    if refused:
        raise of_all_ranks(CheckpointError("no checkpoint can be used:\n" + "\n".join(refused.values())))
    return None


def _take(path: Path, state: State, identity: Identity) -> Header:
    header = state.world.on_root(partial(read_header, path))
    try:
        check_identity(path, header.identity, identity)
        _check_members(path, header.entries, state)
    except UsageError as error:
        raise of_all_ranks(error)  # noqa: B904 (the very same)
    with ExitStack() as stack:
        file = _attempt(state.world, lambda: stack.enter_context(h5py.File(path, "r", locking=False)))
        datasets = Datasets(state.world, file, header.entries)
        for member in state.members.values():
            member.load(datasets)
    state.step = header.step
    return header


class Datasets:
    """The datasets of an open checkpoint file, as members take them: see `member.Source`."""

    def __init__(self, world: World, file: Any, entries: Mapping[str, Entry]):
        self._world, self._file, self._entries = world, file, entries

    def shape(self, name: str) -> tuple[int, ...]:
        """See `Source`."""
        return self._entries[name].shape

    def value(self, name: str) -> Any:
        """See `Source`."""
        entry = self._entries[name]
        self._compare(name, local_digest(np.array([entry.value], entry.dtype), (1,), (0,)))
        return entry.value

    def read(self, name: str, layout: Layout) -> np.ndarray:
        """See `Source`."""
        array: np.ndarray = _attempt(self._world, lambda: self._file[self._entries[name].path][layout.slices])
        self._compare(name, Field.holding(name, layout, array, (), "", "").digest())
        return array

    def fill(self, field: Block) -> None:
        """See `Source`."""
        _attempt(self._world, partial(_read_block, self._file, field))
        self._compare(field.name, field.digest())

    def _compare(self, name: str, found: int) -> None:
        wanted = self._entries[name].digest
        if found != wanted:
            raise CheckpointError(
                f"{name} is damaged: its digest is {hexadecimal(found)}, not {hexadecimal(wanted)} as written"
            )


def _attempt(world: World, call: Callable[[], T]) -> T:
    """What the call returns; CheckpointError on all ranks where one cannot read. Collective."""
    with world.raise_on_all_ranks(CheckpointError):
        try:
            value = call()
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            if is_device_error(error):
                raise  # the file is not to blame
            raise CheckpointError(f"rank {world.rank} cannot read it: {error}") from error
    return value


def _read_block(file: Any, field: Block) -> None:
    """Read this rank's brick, piece by piece: no more of it is in memory a second time."""
    dataset, (along, *others) = file[field.path], field.layout.slices
    for rows in pieces(field.local):
        part = slice(along.start + rows.start, min(along.start + rows.stop, along.stop)), *others
        field[rows] = dataset[part]


def check_identity(path: Path, found: Identity, wanted: Identity) -> None:
    """Raise UsageError where the checkpoint is another run's: another program, parameter or seed."""
    if found.program != wanted.program:
        raise UsageError(
            f"{path} is a checkpoint of the program {found.program}, not of {wanted.program}: a run folder "
            f"holds one run. Use another --out, or run {found.program}."
        )
    there = {**found.parameters, "seed": found.seed}
    here = {**wanted.parameters, "seed": wanted.seed}
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name) or (name in here) != (name in there):
            raise UsageError(
                f"{_flag(name, here)} does not fit {path}, which was written with {_flag(name, there)}: a "
                f"run keeps its parameters. Use the same, or another --out for a run of its own."
            )


def _flag(name: str, values: dict[str, Any]) -> str:
    flag = f"--{name.replace('_', '-')}"
    return f"{flag} {values[name]}" if name in values else f"no {flag}"


def _check_members(path: Path, found: Mapping[str, Entry], state: State) -> None:
    """Raise UsageError where the program declares another state than the file holds."""
    wanted = {name: kind for member in state.members.values() for name, kind in member.kinds().items()}
    for name in sorted(wanted.keys() | found.keys()):
        entry = found.get(name)
        there = [f"{entry.dtype} {entry.shape}", entry.dtype] if entry is not None else ["missing"]
        if wanted.get(name) not in there:
            raise UsageError(
                f"{name} is {wanted.get(name, 'missing')} in the program's state and {there[0]} in {path}: the program "
                f"has changed since. Use the program as it was, or another --out for a run of its own."
            )
