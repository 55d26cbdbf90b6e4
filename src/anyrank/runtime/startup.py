"""Checks before a run starts: what must be the same on all ranks."""

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
from anyrank.errors import UsageError, as_ranges
from anyrank.kernel import BODIES
from anyrank.program import Program, flag_of
from anyrank.provenance import file_hash, remember
from anyrank.runtime.options import Options
from anyrank.runtime.user_files import is_file
from anyrank.state import State
from anyrank.world import World

#: The bits may depend on the first two parts of these versions.
_EXACT = ("python", "numpy", "numba", "cupy")
_OTHERS = ("h5py", "hdf5", "mpi4py", "cython", "pydantic", "libc")
_SETTINGS = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE", "NUMBA_NUM_THREADS"),
    *("NUMBA_DISABLE_JIT", "NUMBA_CPU_NAME", "GLIBC_TUNABLES", "PYTHONHASHSEED", "LD_PRELOAD"),
)
#: Options that decide which collective calls the ranks make, and when.
_DECISIVE = (
    *("split", "halo_steps", "transfer", "checkpoint_every", "checkpoint_io", "stop_at"),
    *("branch_from", "regrid", "allow_missing"),
    *("picture", "digests", "chaos", "observe_every", "on_full_disk"),
    *("frames", "frames_every", "frames_stride", "frames_type", "frames_compression"),
)
#: A key that cannot be the name of a member.
_STEPS = "number of steps"
#: Allowed difference between clocks in seconds; the ranks do not read them at exactly the same time.
SKEW = 2.0
#: The number of different values that an error lists.
LISTED = 8

Properties = Mapping[str, str]


@dataclass(frozen=True)
class Rank:
    """The properties of one rank: those that must be equal, those that should be equal, and its own."""

    must: Properties
    should: Properties
    host: str
    gpu: str
    #: Nanoseconds since 1970.
    clock: int
    #: The number of tasks that its launcher reports, if MPI has another number of ranks; else 0.
    launched: int
    #: The GPUs of its node that it could not use.
    refused: str = ""


def check_ranks(world: World, program: Program, source: str, options: Options) -> list[str]:
    """Compare the ranks; return warnings of differences, the same on all ranks. Collective.

    Call it after the device is chosen. From then on, provenance includes all hosts and the program's file. Raises
    UsageError on all ranks if they differ in anything on which the results or the collective calls depend.
    """
    file = Path(inspect.getfile(type(program))) if is_file(source) else None
    hosts = world.gather(os.uname().nodename)
    known = remember(world, hosts=_ranges(hosts or []), program_hash=file_hash(file) if file else "")
    refused = BODIES.device.refused
    if world.size == 1:
        return [*refused]
    world.barrier()
    mine = replace(_describe(program, options, known, time.time_ns(), world.size), refused="; ".join(refused))
    values = _fingerprint(mine.must, mine.should), mine.clock, int(bool(mine.gpu or mine.launched))
    (low, high), (early, late), (_, compare) = _extremes(world, *values)
    if low == high and late - early < SKEW * 1e9 and not compare:
        return []
    ranks = world.gather(mine) or []
    what = "the ranks differ in properties that affect the result"
    _refuse(world, what, _errors(ranks), "Start all ranks with the same parameters, options, files and versions.")
    return world.bcast(_warnings(ranks))


def device_of(world: World) -> str:
    """Return the device of this rank: its GPU and the ranks that share it, or why it has none. Collective."""
    known = BODIES.device.card
    sharing = [rank for rank, other in world.node_gather((world.rank, known)) if other == known and rank != world.rank]
    if not known:
        return f"device host (no GPU: {BODIES.no_gpu})"
    return f"device {BODIES.device.name} ({known})" + (f", shared with rank(s) {as_ranges(sharing)}" if sharing else "")


def check_state(state: State, steps: Any = None) -> None:
    """Raise UsageError on all ranks if they declare different states or numbers of steps. Collective."""
    mine = {name: member.describe() for name, member in state.members.items()}
    mine[_STEPS] = repr(steps)
    ((low, high),) = _extremes(state.world, _fingerprint(mine))
    if low == high:
        return
    ranks = state.world.gather(mine) or []
    absent = {name: "not declared" for members in ranks for name in members}
    lines = differences([{**absent, **members} for members in ranks])
    orders = differences([{"order": ", ".join(name for name in members if name != _STEPS)} for members in ranks])
    what = "the ranks declare different states"
    _refuse(state.world, what, lines or orders, "Nothing in `declare` may depend on the rank.")


def _describe(program: Program, options: Options, known: Mapping[str, Any], clock: int, size: int) -> Rank:
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
        "mpi": known["mpi"].partition(",")[0],  # the rest of Open MPI's version names the build host
    }
    should = {name: known.get(name, "missing") for name in (*_EXACT, *_OTHERS)}
    should |= {name: os.environ.get(name, "unset") for name in _SETTINGS}
    should["command line"] = " ".join(sys.argv[1:])
    tasks = launcher.tasks()
    launched = tasks if tasks != size else 0
    return Rank(must, should, known["host"], known.get("gpu", ""), clock, launched)


def _errors(ranks: Sequence[Rank]) -> list[str]:
    counts = _ranges([rank.launched and f"{rank.launched} tasks, MPI {len(ranks)}" for rank in ranks])
    lines = differences([rank.must for rank in ranks]) + ([_line("the launcher counts", counts)] if counts else [])
    return lines + differences([{"host": rank.host} for rank in ranks]) if lines else []


def _warnings(ranks: Sequence[Rank]) -> list[str]:
    lines = differences([rank.should for rank in ranks])
    offsets = [(rank.clock - ranks[0].clock) / 1e9 for rank in ranks]
    if ranks and max(offsets) - min(offsets) > SKEW:
        lines.append(_line("clock", _ranges([f"{offset:+.0f} s" for offset in offsets])))
    refused = _ranges([rank.refused and f"{rank.refused} of {rank.host}" for rank in ranks])
    if refused:
        lines.append(_line("another GPU was taken", refused))
    if any(rank.gpu for rank in ranks):
        lines += differences([{"GPU": "one" if rank.gpu else "none"} for rank in ranks])
    return lines


def _fingerprint(*properties: Properties) -> int:
    digest = hashlib.blake2b(json.dumps([[*each.items()] for each in properties]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _extremes(world: World, *values: int) -> list[tuple[int, int]]:
    """Return the minimum and the maximum of each value over all ranks, in one reduction. Collective."""
    # min(x) is ~max(~x), and unlike -x, ~x does not overflow.
    both = world.allreduce(np.array([[~value for value in values], values], np.int64), "max")
    return [(~low, high) for low, high in both.T.tolist()]


def differences(ranks: Sequence[Properties]) -> list[str]:
    """Return one line for each property that has different values; ranks without it are ignored."""
    names = dict.fromkeys(name for properties in ranks for name in properties)
    values = {name: _ranges([properties.get(name, "") for properties in ranks]) for name in names}
    return [_line(name, ranges) for name, ranges in values.items() if len(ranges) > 1]


def _ranges(values: Sequence[str | int]) -> dict[str, str]:
    """Return the ranks of each value, as text such as 0-3,7; empty values are ignored."""
    ranks: dict[str, list[int]] = {}
    for rank, value in enumerate(values):
        if value:
            ranks.setdefault(str(value), []).append(rank)
    return {value: as_ranges(where) for value, where in ranks.items()}


def _line(name: str, ranges: Mapping[str, str]) -> str:
    parts = [f"{value} on rank{'s' * (not where.isdigit())} {where}" for value, where in ranges.items()]
    more = [f"{len(parts) - LISTED} more"] if len(parts) > LISTED else []
    return f"{name}: " + ", ".join(parts[:LISTED] + more)


def _refuse(world: World, what: str, lines: Sequence[str], fix: str) -> None:
    """Raise UsageError on all ranks if any rank has lines to show. Collective."""
    with world.raise_on_all_ranks():
        if lines:
            raise UsageError("\n".join([f"{what}:", *(f"  {line}" for line in lines), fix]))
