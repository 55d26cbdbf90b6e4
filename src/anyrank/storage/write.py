"""Writing: one checkpoint under way, from the copy of the values to the durable file."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from anyrank.errors import AnyrankError
from anyrank.member import digest_of
from anyrank.numerics.digest import hexadecimal
from anyrank.provenance import provenance
from anyrank.state import Field, State, check_scalars
from anyrank.storage import durable, keep
from anyrank.storage.background import Background
from anyrank.storage.format import Identity, complete, lay_out
from anyrank.storage.seal import Extent, seal
from anyrank.storage.ways import Digests, Way


@dataclass(frozen=True)
class Saved:
    """What came of a checkpoint, the same on all ranks.

    `error` is empty when it is good; else those before it are as they were, and `digests` is empty.
    `seconds` passed from its begin until it was durable; for `blocked` of them computing stood still (on
    the rank where it was longest). `hidden` is the share of its cost that computing did not wait for.
    """

    step: int
    path: Path
    bytes: int
    seconds: float
    blocked: float
    hidden: float
    digests: Digests
    digest: int
    error: str = ""


class Writing:
    """One checkpoint under way: `proceed` ends one of its two phases and starts the next. Collective.

    First every rank writes its values; then rank 0 adds the digests of all, seals the file, gives it its name
    and deletes old ones with `rotate`. What takes time is done in threads.
    """

    def __init__(
        self,
        state: State,
        way: Way,
        identity: Identity,
        path: Path,
        rotate: Callable[[Path], None],
        *,
        command: str = "",
        finished: bool = False,
    ):
        self._began = self._ended = perf_counter()
        self._world, self._path, self._rotate = state.world, path, rotate
        self._step, self._error, self._bytes, self._sealing = state.step, "", 0, False
        self._waited = self._busy = 0.0
        self._background: Background[Any] | None = None
        self._temporary = keep.temporary_of(path.parent, state.step)
        check_scalars(state)
        self._stored = state.stored()
        self._digests = {scalar.name: scalar.digest() for scalar in state.scalars()}

        def laid_out() -> tuple[Path, dict[str, Extent]]:
            durable.make_folder(path.parent)
            made = provenance(state.world, command)
            return self._temporary, lay_out(self._temporary, self._stored, self._step, identity, finished, made)

        try:
            self._temporary, self._extents = state.world.on_root(laid_out)
        except AnyrankError as error:
            self._error = _plainly(path, error)
        else:
            way.take(
                self._temporary, self._extents, [item for item in self._stored.values() if isinstance(item, Field)]
            )
            self._background = Background(way.write)
        self._blocked = perf_counter() - self._began

    def working(self) -> bool:
        """Whether this rank's part of the present phase still runs. Local."""
        return self._background is not None and not self._background.done

    def proceed(self) -> Saved | None:
        """End the present phase, waiting for it where it still runs; what came of it all after the last one."""
        entered = perf_counter()
        over = True
        if not self._error:
            try:
                over = self._sealed() if self._sealing else self._written()
            except AnyrankError as error:
                self._error = _plainly(self._path, error)
        if self._error and self._world.rank == 0:
            self._discard()
        self._blocked += perf_counter() - entered
        return self._saved() if over or self._error else None

    def _wait(self) -> Any:
        """The result of the thread of this rank, if it has one; raises on all ranks if any one's failed."""
        entered, work = perf_counter(), self._background
        if work is not None:
            work.wait()
            self._busy += work.seconds
            self._waited += perf_counter() - entered
        with self._world.raise_on_all_ranks(Exception):
            if work is not None and work.error is not None:
                raise work.error
        return work.result if work is not None else None

    def _written(self) -> bool:
        mine: Digests = self._wait()
        names = list(mine)
        parts = np.array([mine[name] for name in names], np.uint64)
        totals = self._world.allreduce(parts).tolist()
        known = {**self._digests, **dict(zip(names, totals, strict=True))}
        self._digests = {name: known[name] for name in self._stored}
        self._digest = digest_of(self._stored, self._digests)
        self._background = Background(self._seal) if self._world.rank == 0 else None
        self._sealing = True
        return False

    def _seal(self) -> int:
        texts = {name: hexadecimal(value) for name, value in self._digests.items()}
        complete(self._temporary, self._stored, texts, hexadecimal(self._digest))
        seal(self._temporary, list(self._extents.values()))
        size = self._temporary.stat().st_size
        durable.publish(self._temporary, self._path)
        self._ended = perf_counter()
        with suppress(OSError):  # the checkpoint is good, whatever becomes of old ones
            self._rotate(self._path)
        return size

    def _sealed(self) -> bool:
        size = self._wait()
        self._bytes, seconds = self._world.bcast((size, self._ended - self._began))
        self._ended = self._began + seconds
        return True

    def _discard(self) -> None:
        """Give the space back even where HDF5, after an error, still holds the file open."""
        with suppress(OSError):
            with self._temporary.open("r+b") as file:
                file.truncate()
            self._temporary.unlink()

    def _saved(self) -> Saved:
        mine = np.array([self._blocked, max(self._busy - self._waited, 0.0)])
        blocked, unseen = self._world.allreduce(mine, "max").tolist()
        return Saved(
            self._step,
            self._path,
            self._bytes,
            self._ended - self._began if not self._error else blocked + unseen,
            blocked,
            unseen / (blocked + unseen),
            self._digests if not self._error else {},
            self._digest if not self._error else 0,
            self._error,
        )


def _plainly(path: Path, error: AnyrankError) -> str:
    """What went wrong, without the paragraph that HDF5 puts around the system's message."""
    told = re.search(r"error message = '([^']+)'", str(error))
    return f"{path} was not written: {told[1] if told else error}"
