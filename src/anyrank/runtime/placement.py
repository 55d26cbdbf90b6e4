"""The placement of a rank on its node: the number of its threads, and the cores to which it is bound."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import chain, groupby, pairwise
from pathlib import Path

from anyrank.errors import UsageError, as_ranges
from anyrank.layout import even_cuts
from anyrank.runtime.options import Options

#: Libraries read the number of their threads from these variables when they are loaded. The bits of BLAS depend on it.
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
#: Variables that are set in batch jobs; and variables with the number of the node's cores that belong to the job.
_JOB, _CORE_COUNTS = ("SLURM_JOB_ID", "PBS_JOBID", "_CONDOR_JOB_AD"), ("SLURM_CPUS_ON_NODE", "NCPUS")
BOUND = "bound by anyrank"
Cores = frozenset[int]
#: A function from a logical core to its socket and its physical core.
CoreLocation = Callable[[int], tuple[int, int]]


def plan_threads(requested: int | None, environment: Mapping[str, str] = os.environ) -> tuple[int, dict[str, str]]:
    """Return the threads of a rank (as requested, else from its environment, else 1), and the variables to change."""
    given = [int(match[0]) for name in VARIABLES if (match := re.match("[1-9][0-9]*", environment.get(name, "")))]
    threads = requested or (given[0] if given else 1)
    changes = [
        name for name in VARIABLES if (environment.get(name) != str(threads) if requested else name not in environment)
    ]
    return threads, dict.fromkeys(changes, str(threads))


def limit_threads(requested: int | None) -> int:
    """Limit the threads of libraries that were loaded with another number; return the number of threads."""
    threads, changes = plan_threads(requested)
    if "numba" in sys.modules and changes.pop("NUMBA_NUM_THREADS", ""):
        numba = sys.modules["numba"]  # it rejects another number in the environment when its threads already run
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    os.environ.update(changes)
    if "OMP_NUM_THREADS" in changes:
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads)
    return threads


def place_rank(options: Options, masks: Sequence[Cores], rank: int) -> tuple[str, str]:
    """Limit the threads of this process and bind it to its cores; return its placement and a warning as text.

    `rank` is the rank within the node, `masks` are the cores that each rank of the node may use. Raises UsageError if
    --bind core is not possible.
    """
    threads, node, usable = limit_threads(options.threads), os.uname().nodename, len(Cores().union(*masks))
    cores, how = choose_cores(options.bind, threads, masks, rank, os.cpu_count() or 1, os.environ)
    load = f"{len(masks)} rank(s) × {threads} thread(s) on {usable} core(s) of {node}"
    if options.bind == "core" and how.startswith("not"):
        fix = "Use fewer ranks on a node or fewer --threads, or leave --bind out."
        raise UsageError(f"--bind core: {load} do not fit: each rank needs cores of its own. {fix}")
    for task in Path("/proc/self/task").iterdir() if how == BOUND else ():
        with suppress(OSError):  # a thread that has just ended, or a sandbox
            os.sched_setaffinity(int(task.name), cores)
    if how == BOUND and os.sched_getaffinity(0) != cores:
        cores, how = masks[rank], "not bound: the system refused it"
    many = f"{threads} thread(s) (OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')})"
    location = f"number {rank} of {len(masks)} on node {node}, on core(s) {as_ranges(cores)} ({how}), {many}"
    return location, f"oversubscribed: {load}" if len(masks) * threads > usable else ""


def choose_cores(
    bind: str, threads: int, masks: Sequence[Cores], rank: int, online: int, environment: Mapping[str, str]
) -> tuple[Cores, str]:
    """Return the cores of a rank, and whether it is bound to them and why. The node has `online` cores."""
    usable, auto, job = Cores().union(*masks), bind == "auto", any(name in environment for name in _JOB)
    parts = shares(masks, threads) if job or not auto else None
    whole = len(masks) * threads >= online or str(online) in map(environment.get, _CORE_COUNTS)
    reasons = {
        "bound by the launcher": len(masks) > 1 and sum(map(len, masks)) == len(usable),
        "not bound: --bind none": bind == "none",
        "not bound: no batch job": auto and not job,
        "not bound: alone on its node": auto and len(masks) == 1,
        "not bound: no cores for each rank": parts is None,
        "not bound: other jobs may have the same cores": auto and len(usable) == online and not whole,
    }
    reason = next((reason for reason, holds in reasons.items() if holds), "")
    return (masks[rank], reason) if parts is None or reason else (parts[rank], BOUND)


@cache
def _location(cpu: int) -> tuple[int, int]:
    folder = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    with suppress(OSError):
        texts = [(folder / name).read_text(encoding="utf-8") for name in ("physical_package_id", "core_id")]
        return int(texts[0]), int(texts[1])
    return 0, cpu


def shares(masks: Sequence[Cores], threads: int, location: CoreLocation = _location) -> list[Cores] | None:
    """Partition the cores that ranks share into equal parts, if possible of one socket and of whole physical cores.

    None if a part would have fewer than `threads` cores, or if ranks share only some of their cores.
    """
    parts = list(masks)
    for mask in set(masks):
        ranks = [rank for rank, other in enumerate(masks) if other == mask]
        order = sorted(mask, key=lambda cpu: (*location(cpu), cpu))
        for units in [list(group) for _, group in groupby(order, location)], [[cpu] for cpu in order]:
            cuts = [[*chain(*units[a:b])] for a, b in pairwise(even_cuts(len(units), len(ranks)))]
            if min(map(len, cuts)) >= threads:
                break
        if min(map(len, cuts)) < threads or any(mask & other for other in masks if other != mask):
            return None
        for rank, part in zip(ranks, cuts, strict=True):
            largest = max((Cores(group) for _, group in groupby(part, lambda cpu: location(cpu)[0])), key=len)
            parts[rank] = largest if len(largest) >= threads else Cores(part)
    return parts
