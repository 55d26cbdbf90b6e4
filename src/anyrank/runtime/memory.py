"""Memory: whether the declared fields fit into the nodes and GPUs of the ranks, and how much memory a run used."""

from __future__ import annotations

import os
from math import prod

import numpy as np

from anyrank.device.gpu import SLICE, Gpu
from anyrank.device.host import size_of_rows
from anyrank.errors import UsageError, as_ranges
from anyrank.field import Field
from anyrank.kernel import BODIES
from anyrank.memory import available, peak
from anyrank.state import State


def shortage(state: State, program: str) -> UsageError | None:
    """Return the error if the fields of the ranks that share a GPU, or this node, exceed its memory. Collective.

    `state` is declared, and its Fields are not yet allocated. Fields with a halo count twice, because `advance` writes
    the new values into a second array. For a GPU, one slice (or one block, if that is smaller) is added: the buffer
    through which `setup` copies values from the host.
    """
    gpu = BODIES.device if isinstance(BODIES.device, Gpu) else None
    needed, limit = sum(_size(field) * _arrays(field) for field in state.fields()), state.memory_limit
    if gpu is not None:
        needed += min(
            SLICE, max((prod(field.layout.local_shape) * field.dtype.itemsize for field in state.fields()), default=0)
        )
    free, total = gpu.free_memory() if gpu is not None else (available(), 0)
    identity = _identity(gpu) if gpu is not None else None
    gathered = state.world.node_gather((identity, state.world.rank, needed, free))
    ranks, needs, frees = zip(*(rest for other, *rest in gathered if other == identity), strict=True)
    fields, host = f"{program}: the fields of rank{'s' * (len(ranks) > 1)} {as_ranges(ranks)}", os.uname().nodename
    if gpu is None and limit is not None and needed > limit:
        return UsageError(
            f"{program}: --memory-limit {limit} is less than the {_bytes(needed)} that the fields of a rank need. "
            "Use more ranks, fewer cells or a higher limit."
        )
    if sum(needs) <= min(frees):
        return None
    if gpu is None:
        return UsageError(
            f"{fields} need {_bytes(sum(needs))} of memory on {host}, which has {_bytes(min(frees))} available. "
            "Use more nodes or fewer cells."
        )
    return UsageError(
        f"{fields}, and their initialization, need {_bytes(sum(needs))} on {gpu.name} ({gpu.card}) of {host}, which "
        f"has {_bytes(min(frees))} free of {_bytes(total)}. Use more GPUs or fewer cells, or compute on the CPU "
        "with --body cython."
    )


def memory_usage(state: State) -> dict[str, int]:
    """Return the maximum over ranks, in bytes, of arrays, staging, peak on the host and GPU memory. Collective."""
    device, arrays = state.device, sum(member.nbytes for member in state.members.values())
    fields = (item for item in state.stored().values() if isinstance(item, Field))
    staging = sum(field.local.nbytes for field in fields if not field.on_disk)
    card = 0 if device.on_host else device.cupy.get_default_memory_pool().total_bytes()
    sizes = np.array([arrays, staging, peak(), card], np.int64)
    largest = state.world.allreduce(sizes, "max")
    return dict(zip(("arrays", "staging", "peak", "device"), largest.tolist(), strict=True))


def _arrays(field: Field) -> int:
    """Return the number of arrays of a Field: two if `advance` may replace it."""
    return 2 if any(field.halo) and not field.constant else 1


def _size(field: Field) -> int:
    """Return the bytes of one array of a Field, including the padding that aligns its rows to cache lines."""
    return size_of_rows(field.storage_shape, field.dtype, field.offset[-1])[0] * field.dtype.itemsize


def _identity(gpu: Gpu) -> str:
    """Return an identity of the GPU, or of its MIG part, that is the same for all ranks of a node that share it."""
    # CuPy truncates the UUID at a zero byte; the name of the card then distinguishes the parts of one card.
    return f"{gpu.cupy.cuda.runtime.getDeviceProperties(gpu.index).get('uuid')} {gpu.card}"


def _bytes(number: int) -> str:
    return f"{number} bytes ({float(f'{number / 1e9:.3g}'):g} GB)"
