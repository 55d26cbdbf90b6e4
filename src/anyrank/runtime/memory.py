"""Memory: whether what a program declares fits its nodes and the cards that its ranks take, and what it took."""

from __future__ import annotations

import os
from math import prod

import numpy as np

from anyrank.device.gpu import SLICE, Gpu
from anyrank.device.host import size_of_rows
from anyrank.errors import UsageError, spans
from anyrank.field import Field
from anyrank.kernel import BODIES
from anyrank.memory import available, peak
from anyrank.state import State


def shortage(state: State, program: str) -> UsageError | None:
    """What to tell where the bytes for the fields are not there for all ranks of a GPU, or of this node. Collective.

    `state` is declared, and its Fields take no memory yet. Fields with a halo count twice, because `advance` makes
    their next values beside the present ones. What `setup` writes into those of a GPU from the host passes through its
    memory a slice at a time, or a block where that is smaller, which counts, too.
    """
    gpu = BODIES.device if isinstance(BODIES.device, Gpu) else None
    mine, limit = sum(_size(field) * (2 if field.halo else 1) for field in state.fields()), state.memory_limit
    if gpu is not None:
        mine += min(
            SLICE, max((prod(field.layout.local_shape) * field.dtype.itemsize for field in state.fields()), default=0)
        )
    free, total = gpu.free_memory() if gpu is not None else (available(), 0)
    known = _identity(gpu) if gpu is not None else None
    found = state.world.node_gather((known, state.world.rank, mine, free))
    ranks, needs, frees = zip(*(rest for other, *rest in found if other == known), strict=True)
    who, host = f"{program}: the fields of rank{'s' * (len(ranks) > 1)} {spans(ranks)}", os.uname().nodename
    if gpu is None and limit is not None and mine > limit:
        return UsageError(
            f"{program}: --memory-limit {limit} is less than the {_bytes(mine)} that the fields of a rank need. "
            "Use more ranks, fewer cells or a higher limit."
        )
    if sum(needs) <= min(frees):
        return None
    if gpu is None:
        return UsageError(
            f"{who} need {_bytes(sum(needs))} of memory on {host}, which has {_bytes(min(frees))} available. "
            "Use more nodes or fewer cells."
        )
    return UsageError(
        f"{who}, and filling them, need {_bytes(sum(needs))} on {gpu.name} ({gpu.card}) of {host}, which has "
        f"{_bytes(min(frees))} free of {_bytes(total)}. Use more GPUs or fewer cells, or the host's memory, with "
        "--body cython."
    )


def taken(state: State) -> dict[str, int]:
    """Bytes of the largest rank: its arrays, a checkpoint's staging copy, the process's peak on the host, and all that
    it holds of a GPU. Collective."""
    device, arrays = state.device, sum(member.nbytes for member in state.members.values())
    staging = sum(item.local.nbytes for item in state.stored().values() if isinstance(item, Field))
    card = 0 if device.on_host else device.cupy.get_default_memory_pool().total_bytes()
    mine = np.array([arrays, staging, peak(), card], np.int64)
    largest = state.world.allreduce(mine, "max")
    return dict(zip(("arrays", "staging", "peak", "device"), largest.tolist(), strict=True))


def _size(field: Field) -> int:
    """Bytes of one of a Field's arrays, where its rows begin cache lines with what is between them."""
    return size_of_rows(field.storage_shape, field.dtype, field.margin)[0] * field.dtype.itemsize


def _identity(gpu: Gpu) -> str:
    """What ranks of a node have in common that share a GPU, or a part of one, whatever number each has for it."""
    # CuPy's bytes of the UUID may end too early, at a zero; parts of one card differ in nothing else.
    return f"{gpu.cupy.cuda.runtime.getDeviceProperties(gpu.index).get('uuid')} {gpu.card}"


def _bytes(number: int) -> str:
    return f"{number} bytes ({float(f'{number / 1e9:.3g}'):g} GB)"
