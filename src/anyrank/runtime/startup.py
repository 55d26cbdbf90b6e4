"""What must be the same on all ranks before a run starts."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from anyrank import launcher
from anyrank.errors import UsageError, spans
from anyrank.kernel import BODIES
from anyrank.program import Program, flag_of
from anyrank.provenance import file_hash, remember
from anyrank.runtime.options import Options
from anyrank.runtime.programs import is_file
from anyrank.state import State
from anyrank.world import World

#: The bits may depend on these, but not on the last part of their versions.
_EXACT = ("python", "numpy", "numba", "cupy")
_OTHERS = ("h5py", "hdf5", "mpi4py", "cython", "pydantic", "libc")
_SETTINGS = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE", "NUMBA_NUM_THREADS"),
    *("NUMBA_DISABLE_JIT", "NUMBA_CPU_NAME", "GLIBC_TUNABLES", "PYTHONHASHSEED", "LD_PRELOAD"),
)
#: Options that decide which collective calls the ranks make, and when.
_DECISIVE = (
    *("split", "halo_steps", "transfer", "checkpoint_every", "checkpoint_io", "stop_at"),
    *("picture", "digests", "chaos"),
)
#: What no member can be called.
_STEPS = "number of steps"
#: Seconds that clocks may differ; ranks do not read them at the very same moment.
SKEW = 2.0
#: How many values of one thing are listed.
LISTED = 8

Facts = Mapping[str, str]


@dataclass(frozen=True)
class Rank:
    """What one rank says of itself: what results depend on, what should be alike, and what is its own."""

    must: Facts
    should: Facts
    host: str
    gpu: str
    #: Nanoseconds since 1970.
    clock: int
    #: How many tasks its launcher counts, where MPI counts otherwise.
    launched: int
    #: The GPUs of its node that it tried and could not use.
    refused: str = ""


def check_ranks(world: World, program: Program, source: str, options: Options) -> list[str]:
    """Warnings of what differs between ranks and should not, the same on all of them. Collective.

    Call it when the device is chosen. From then on provenance tells of all hosts and the program's file.
    Raises UsageError on all ranks where they differ in what results or the calls of all ranks depend on.
    """
    file = Path(inspect.getfile(type(program))) if is_file(source) else None
    hosts = world.gather(os.uname().nodename)
    known = remember(world, hosts=_ranges(hosts or []), program_hash=file_hash(file) if file else "")
    refused = BODIES.device.refused
    if world.size == 1:
        return [*refused]
    world.barrier()
    mine = replace(_facts(program, options, known, time.time_ns(), world.size), refused="; ".join(refused))
    values = _fingerprint(mine.must, mine.should), mine.clock, int(bool(mine.gpu or mine.launched))
    (least, most), (early, late), (_, look) = _extremes(world, *values)
    if least == most and late - early < SKEW * 1e9 and not look:
        return []
    ranks = world.gather(mine) or []
    what = "the ranks differ in what the result depends on"
    _refuse(world, what, _errors(ranks), "Start all ranks with the same parameters, options, files and versions.")
    return world.bcast(_warnings(ranks))


def device_of(world: World) -> str:
    """What this rank computes on: its GPU, and who shares it, or why it has none. Collective."""
    known = BODIES.device.card
    sharing = [rank for rank, other in world.node_gather((world.rank, known)) if other == known and rank != world.rank]
    if not known:
        return f"device host (no GPU: {BODIES.no_gpu})"
    return f"device {BODIES.device.name} ({known})" + (f", shared with rank(s) {spans(sharing)}" if sharing else "")


def check_state(state: State, steps: Any = None) -> None:
    """Raise UsageError on all ranks where they declare different states, or numbers of steps. Collective."""
    mine = {name: member.describe() for name, member in state.members.items()}
    mine[_STEPS] = repr(steps)
    ((least, most),) = _extremes(state.world, _fingerprint(mine))
    if least == most:
        return
    ranks = state.world.gather(mine) or []
    absent = {name: "not declared" for facts in ranks for name in facts}
    lines = _differences([{**absent, **facts} for facts in ranks])
    orders = _differences([{"order": ", ".join(name for name in facts if name != _STEPS)} for facts in ranks])
    what = "the ranks declare different states"
    _refuse(state.world, what, lines or orders, "Let nothing in `declare` depend on the rank.")


def _facts(program: Program, options: Options, known: Mapping[str, Any], clock: int, size: int) -> Rank:
    must = {
        "program": program.name,
        "program file": known.get("program_hash", "")[:12],
        **{flag_of(name): repr(value) for name, value in program.parameters.items()},
        **{flag_of(name): repr(getattr(options, name)) for name in _DECISIVE},
        "anyrank's files": known["anyrank_hash"][:12],
        "implementation": known["implementation"],
        **{name: ".".join(known[name].split(".")[:2]) for name in _EXACT if name in known},
        "byte order": sys.byteorder,
        "architecture": os.uname().machine,
        "mpi": known["mpi"].partition(",")[0],  # Open MPI's goes on with the host that built it
    }
    should = {name: known.get(name, "missing") for name in (*_EXACT, *_OTHERS)}
    should |= {name: os.environ.get(name, "unset") for name in _SETTINGS}
    should["command line"] = " ".join(sys.argv[1:])
    tasks = launcher.tasks()
    launched = tasks if tasks != size else 0
    return Rank(must, should, known["host"], known.get("gpu", ""), clock, launched)


def _errors(ranks: Sequence[Rank]) -> list[str]:
    counts = _ranges([rank.launched and f"{rank.launched} tasks, MPI {len(ranks)}" for rank in ranks])
    found = _differences([rank.must for rank in ranks]) + ([_line("the launcher counts", counts)] if counts else [])
    return found + _differences([{"host": rank.host} for rank in ranks]) if found else []


def _warnings(ranks: Sequence[Rank]) -> list[str]:
    found = _differences([rank.should for rank in ranks])
    offsets = [(rank.clock - ranks[0].clock) / 1e9 for rank in ranks]
    if ranks and max(offsets) - min(offsets) > SKEW:
        found.append(_line("clock", _ranges([f"{offset:+.0f} s" for offset in offsets])))
    refused = _ranges([rank.refused and f"{rank.refused} of {rank.host}" for rank in ranks])
    if refused:
        found.append(_line("another GPU was taken", refused))
    if any(rank.gpu for rank in ranks):
        found += _differences([{"GPU": "one" if rank.gpu else "none"} for rank in ranks])
    return found


def _fingerprint(*facts: Facts) -> int:
    digest = hashlib.blake2b(json.dumps([[*each.items()] for each in facts]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _extremes(world: World, *values: int) -> list[tuple[int, int]]:
    """The least and the greatest of each value over all ranks. Collective."""
    both = world.allreduce(np.array([[~value for value in values], values], np.int64), "max")
    return [(~least, most) for least, most in both.T.tolist()]


def _differences(ranks: Sequence[Facts]) -> list[str]:
    """A line for everything that has several values on the ranks that have it."""
    names = dict.fromkeys(name for facts in ranks for name in facts)
    found = {name: _ranges([facts.get(name, "") for facts in ranks]) for name in names}
    return [_line(name, ranges) for name, ranges in found.items() if len(ranges) > 1]


def _ranges(values: Sequence[str | int]) -> dict[str, str]:
    """The ranks of each value, as text such as 0-3,7; without those that have none."""
    ranks: dict[str, list[int]] = {}
    for rank, value in enumerate(values):
        if value:
            ranks.setdefault(str(value), []).append(rank)
    return {value: spans(where) for value, where in ranks.items()}


def _line(name: str, ranges: Mapping[str, str]) -> str:
    parts = [f"{value} on rank{'s' * (not where.isdigit())} {where}" for value, where in ranges.items()]
    more = [f"{len(parts) - LISTED} more"] if len(parts) > LISTED else []
    return f"{name}: " + ", ".join(parts[:LISTED] + more)


def _refuse(world: World, what: str, lines: Sequence[str], fix: str) -> None:
    """Raise UsageError on all ranks if any has lines to show. Collective."""
    with world.raise_on_all_ranks():
        if lines:
            raise UsageError("\n".join([f"{what}:", *(f"  {line}" for line in lines), fix]))
