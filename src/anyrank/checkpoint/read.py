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

from anyrank.checkpoint import keep
from anyrank.checkpoint.format import Header, Identity, Member, read_header
from anyrank.checkpoint.staging import pieces
from anyrank.device.find import is_device_error
from anyrank.digest import hexadecimal, local_digest
from anyrank.errors import CheckpointError, UsageError
from anyrank.field import Field
from anyrank.layout import Layout, even_cuts
from anyrank.provenance import changes
from anyrank.state import Scalar, State, Table
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
        raise CheckpointError("no checkpoint can be used:\n" + "\n".join(refused.values()))
    return None


def _take(path: Path, state: State, identity: Identity) -> Header:
    header = state.world.on_root(partial(read_header, path))
    check_identity(path, header.identity, identity)
    _check_members(path, header.members, state)
    _read_values(path, header, state)
    for scalar in state.scalars():
        member = header.members[scalar.name]
        value = np.array([member.value], scalar.dtype)
        _compare(scalar.name, local_digest(value, (1,), (0,)), member)
    for scalar in state.scalars():
        scalar.assign(header.members[scalar.name].value)
    state.step = header.step
    return header


def _read_values(path: Path, header: Header, state: State) -> None:
    world = state.world
    with ExitStack() as stack:
        file = _attempt(world, lambda: stack.enter_context(h5py.File(path, "r", locking=False)))
        for field in state.fields():
            _attempt(world, partial(_read_block, file, field))
            _compare(field.name, field.digest(), header.members[field.name])
        for table in state.tables():
            names = [name for name in header.members if name.startswith(f"{table.name}/")]
            columns: dict[str, np.ndarray] = {}
            for name in sorted(names, reverse=True):  # the sizes of text before its bytes
                columns[name.partition("/")[2]] = _read_column(file, name, header.members[name], table, columns)
            table.load(columns)


def _read_column(file: Any, name: str, member: Member, table: Table, before: Mapping[str, np.ndarray]) -> np.ndarray:
    """This rank's part of a column, whose digest holds. Collective."""
    world, column = table.world, name.partition("/")[2]
    layout = _column_layout(member.shape, column, table, before)
    array = _attempt(world, lambda: file[f"tables/{name}"][layout.slices])
    _compare(name, Field.holding(name, layout, array, (), "").digest(), member)
    return np.concatenate(world.comm.allgather(array)) if column in table.facts else array


def _column_layout(shape: tuple[int, ...], column: str, table: Table, before: Mapping[str, np.ndarray]) -> Layout:
    """Rows in even blocks, and the bytes of text as its rows. Collective."""
    sizes = before.get(f"{column}_size")
    if sizes is not None and table.keys.get(column, table) is None:
        cuts = np.cumsum([0, *table.world.comm.allgather(int(sizes.sum()))]).tolist()
        return Layout(shape, table.world, [cuts])
    return Layout(shape, table.world, [even_cuts(shape[0], table.world.size), *((0, n) for n in shape[1:])])


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


def _read_block(file: Any, field: Field) -> None:
    """Read this rank's brick, piece by piece: no more of it is in memory a second time."""
    dataset, (along, *others) = file[f"fields/{field.name}"], field.layout.slices
    for rows in pieces(field.local):
        part = slice(along.start + rows.start, min(along.start + rows.stop, along.stop)), *others
        field[rows] = dataset[part]


def _compare(name: str, found: int, member: Member) -> None:
    if found != member.digest:
        raise CheckpointError(
            f"{name} is damaged: its digest is {hexadecimal(found)}, not {hexadecimal(member.digest)} as written"
        )


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


def _check_members(path: Path, found: dict[str, Member], state: State) -> None:
    """Raise UsageError where the program declares another state than the file holds."""
    wanted = {name: _declared(member) for name, member in state.members.items() if not isinstance(member, Table)}
    wanted |= {f"{table.name}/{name}": kind for table in state.tables() for name, kind in table.stored_kinds().items()}
    there = {name: m.dtype if "/" in name else f"{m.dtype} {m.shape}" for name, m in found.items()}
    for name in sorted(wanted.keys() | there.keys()):
        if wanted.get(name) != there.get(name):
            raise UsageError(
                f"{name} is {wanted.get(name, 'missing')} in the program's state and "
                f"{there.get(name, 'missing')} in {path}: the program has changed since. Use the program "
                f"as it was, or another --out for a run of its own."
            )


def _declared(member: Field | Scalar) -> str:
    shape = member.shape if isinstance(member, Field) else ()
    return f"{member.dtype.str} {shape}"
