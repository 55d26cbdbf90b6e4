"""Read the newest checkpoint that every rank accepts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from anyrank.device.select import is_device_error
from anyrank.errors import CheckpointError, UsageError, of_all_ranks
from anyrank.exchange.read import read_block
from anyrank.field import Field
from anyrank.layout import Layout
from anyrank.member import StoredField
from anyrank.numerics.digest import hexadecimal, local_digest
from anyrank.provenance import changes
from anyrank.state import State
from anyrank.storage import checkpoint_folder
from anyrank.storage.format import Entry, Header, Identity, read_header
from anyrank.values import has_grown
from anyrank.world import World

T = TypeVar("T")


@dataclass(frozen=True)
class Restored:
    """The restored checkpoint, one message for each newer one that was refused, and the changes since."""

    step: int
    path: Path
    finished: bool
    refused: list[str]
    #: One message for each difference from the program, anyrank and NumPy that wrote the file.
    changes: list[str]


def restore(folder: Path, state: State, identity: Identity, refused: dict[Path, str]) -> Restored | None:
    """Restore the state from the newest valid checkpoint; return None if there is no checkpoint. Collective.

    Adds a message to `refused` for each newer checkpoint that is refused.

    A checkpoint is valid if every rank can read its part and every digest is correct in the present layout.
    Raises UsageError if it belongs to another run or has a newer format. Raises CheckpointError, which names each
    file, if all are damaged; the values of the state are then unspecified.
    """
    paths = state.world.on_root(partial(checkpoint_folder.checkpoint_files, folder))
    for path in paths:
        try:
            header = _load(path, state, identity)
        except CheckpointError as error:
            refused[path] = f"{path}: {error}"
            continue
        differences = changes(state.world, header.provenance)
        return Restored(header.step, path, header.finished, [*refused.values()], differences)
    if refused:
        raise of_all_ranks(CheckpointError("no checkpoint can be used:\n" + "\n".join(refused.values())))
    return None


def _load(path: Path, state: State, identity: Identity) -> Header:
    header = state.world.on_root(partial(read_header, path))
    try:
        check_identity(path, header.identity, identity)
        _check_members(path, header.entries, state)
    except UsageError as error:
        raise of_all_ranks(error)  # noqa: B904 (the same error)
    with ExitStack() as stack:
        file = on_all_ranks(state.world, lambda: stack.enter_context(h5py.File(path, "r", locking=False)))
        datasets = Datasets(state.world, file, header.entries)
        for member in state.members.values():
            member.load(datasets)
    state.step = header.step
    return header


class Datasets:
    """The datasets of an open checkpoint file: implements `member.Source`."""

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
        array: np.ndarray = on_all_ranks(self._world, lambda: self._file[self._entries[name].path][layout.slices])
        self._compare(name, Field.from_array(name, layout, array, (), "", "").digest())
        return array

    def fill(self, field: StoredField) -> None:
        """See `Source`."""
        on_all_ranks(self._world, lambda: read_block(self._file[field.path], field))
        self._compare(field.name, field.digest())

    def _compare(self, name: str, digest: int) -> None:
        expected = self._entries[name].digest
        if digest != expected:
            raise CheckpointError(
                f"{name} is damaged: its digest is {hexadecimal(digest)}, not {hexadecimal(expected)} as written"
            )


def on_all_ranks(world: World, call: Callable[[], T]) -> T:
    """Return the result of the call; raises CheckpointError on all ranks if one cannot read. Collective."""
    with world.raise_on_all_ranks(CheckpointError):
        try:
            value = call()
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            if is_device_error(error):
                raise  # the GPU failed, not the file
            raise CheckpointError(f"rank {world.rank} cannot read it: {error}") from error
    return value


def check_identity(path: Path, of_file: Identity, of_run: Identity) -> None:
    """Raise UsageError if the checkpoint belongs to another run: another program, parameter or seed."""
    if of_file.program != of_run.program:
        raise UsageError(
            f"{path} is a checkpoint of the program {of_file.program}, not of {of_run.program}: a run folder "
            f"holds one run. Use another --out, or run {of_file.program}."
        )
    written = {**of_file.parameters, "seed": of_file.seed}
    present = {**of_run.parameters, "seed": of_run.seed}
    for name in sorted(present.keys() | written.keys()):
        if name in of_run.extendable and has_grown(written.get(name), present.get(name)):
            continue  # the run was extended after this checkpoint
        if present.get(name) != written.get(name) or (name in present) != (name in written):
            raise UsageError(
                f"{_flag(name, present)} does not fit {path}, which was written with {_flag(name, written)}: a "
                f"run keeps its parameters. Use the same, or another --out for a run of its own."
            )
    if of_file.lineage != of_run.lineage:
        raise UsageError(
            f"{path} is a checkpoint of {origin_text(of_file.lineage)}, and the run is {origin_text(of_run.lineage)}. "
            "Restore the run.toml of the folder, or use another --out."
        )


def origin_text(lineage: Sequence[Mapping[str, Any]]) -> str:
    """Return where a run began, for messages."""
    return f"a branch of {lineage[-1]['run']}@{lineage[-1]['step']}" if lineage else "a run that began with setup"


def _flag(name: str, values: dict[str, Any]) -> str:
    flag = f"--{name.replace('_', '-')}"
    return f"{flag} {values[name]}" if name in values else f"no {flag}"


def _check_members(path: Path, entries: Mapping[str, Entry], state: State) -> None:
    """Raise UsageError if the file does not hold the state that the program declares."""
    declared = {name: kind for member in state.members.values() for name, kind in member.kinds().items()}
    for name in sorted(declared.keys() | entries.keys()):
        entry = entries.get(name)
        kinds = [f"{entry.dtype} {entry.shape}", entry.dtype] if entry is not None else ["missing"]
        if declared.get(name) not in kinds:
            raise UsageError(
                f"{name} is {declared.get(name, 'missing')} in the program's state and {kinds[0]} in {path}: the "
                f"program has changed since. Use the program as it was, or another --out for a run of its own."
            )
