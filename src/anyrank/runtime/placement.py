"""The place of a rank on its node: the threads that it may have, and the cores that it is bound to."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import chain, groupby, pairwise
from pathlib import Path

from anyrank.errors import UsageError, spans
from anyrank.layout import even_cuts
from anyrank.runtime.options import Options

#: Where libraries look for the number of their threads when they are loaded. The bits of BLAS depend on it.
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
#: One of these is set in a batch job; one of those tells how many cores of the node are the job's.
_JOB, _OURS = ("SLURM_JOB_ID", "PBS_JOBID", "_CONDOR_JOB_AD"), ("SLURM_CPUS_ON_NODE", "NCPUS")
BOUND = "bound by anyrank"
Cores = frozenset[int]
#: A core's socket, and the physical core of which it is a hyperthread.
Where = Callable[[int], tuple[int, int]]


def plan_threads(asked: int | None, there: Mapping[str, str] = os.environ) -> tuple[int, dict[str, str]]:
    """A rank's threads: as asked, as its environment says, else 1; and what to change there."""
    said = [int(found[0]) for name in VARIABLES if (found := re.match("[1-9][0-9]*", there.get(name, "")))]
    threads = asked or (said[0] if said else 1)
    wrong = [name for name in VARIABLES if (there.get(name) != str(threads) if asked else name not in there)]
    return threads, dict.fromkeys(wrong, str(threads))


def limit_threads(asked: int | None) -> int:
    """Give this process's libraries their threads, where its environment did not when they were loaded; how many."""
    threads, late = plan_threads(asked)
    if "numba" in sys.modules and late.pop("NUMBA_NUM_THREADS", ""):
        numba = sys.modules["numba"]  # it refuses another number in the environment once its threads run
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    os.environ.update(late)
    if "OMP_NUM_THREADS" in late:
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads)
    return threads


def place(options: Options, masks: Sequence[Cores], rank: int) -> tuple[str, str]:
    """Limit the threads of this process and bind it to its cores; where it is then, and a warning or none, in words.

    It is number `rank` of those on its node, which may use the cores `masks`. UsageError where `core` cannot be.
    """
    threads, node, usable = limit_threads(options.threads), os.uname().nodename, len(Cores().union(*masks))
    cores, how = choose(options.bind, threads, masks, rank, os.cpu_count() or 1, os.environ)
    crowd = f"{len(masks)} rank(s) × {threads} thread(s) on {usable} core(s) of {node}"
    if options.bind == "core" and how.startswith("not"):
        fix = "Use fewer ranks on a node or fewer --threads, or leave --bind out."
        raise UsageError(f"--bind core: {crowd} do not fit: each rank needs cores of its own. {fix}")
    for task in Path("/proc/self/task").iterdir() if how == BOUND else ():
        with suppress(OSError):  # a thread that has just ended, or a sandbox
            os.sched_setaffinity(int(task.name), cores)
    if how == BOUND and os.sched_getaffinity(0) != cores:
        cores, how = masks[rank], "not bound: the system refuses it"
    many = f"{threads} thread(s) (OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')})"
    where = f"number {rank} of {len(masks)} on node {node}, on core(s) {spans(cores)} ({how}), {many}"
    return where, f"oversubscribed: {crowd}" if len(masks) * threads > usable else ""


def choose(
    bind: str, threads: int, masks: Sequence[Cores], rank: int, online: int, environment: Mapping[str, str]
) -> tuple[Cores, str]:
    """The cores for a rank of a node whose machine has `online`, and who binds it to them or why nobody does."""
    usable, auto, job = Cores().union(*masks), bind == "auto", any(name in environment for name in _JOB)
    parts = shares(masks, threads) if job or not auto else None
    whole = len(masks) * threads >= online or str(online) in map(environment.get, _OURS)
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
def _where(cpu: int) -> tuple[int, int]:
    folder = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    with suppress(OSError):
        texts = [(folder / name).read_text(encoding="utf-8") for name in ("physical_package_id", "core_id")]
        return int(texts[0]), int(texts[1])
    return 0, cpu


def shares(masks: Sequence[Cores], threads: int, where: Where = _where) -> list[Cores] | None:
    """Equal parts of the cores that ranks have in common, in order: of one socket, of physical cores, if that can be.

    None where a part would be less than `threads`, or ranks have only some of their cores in common.
    """
    parts = list(masks)
    for mask in set(masks):
        ranks = [rank for rank, other in enumerate(masks) if other == mask]
        order = sorted(mask, key=lambda cpu: (*where(cpu), cpu))
        for units in [list(group) for _, group in groupby(order, where)], [[cpu] for cpu in order]:
            found = [[*chain(*units[a:b])] for a, b in pairwise(even_cuts(len(units), len(ranks)))]
            if min(map(len, found)) >= threads:
                break
        if min(map(len, found)) < threads or any(mask & other for other in masks if other != mask):
            return None
        for rank, part in zip(ranks, found, strict=True):
            home = max((Cores(group) for _, group in groupby(part, lambda cpu: where(cpu)[0])), key=len)
            parts[rank] = home if len(home) >= threads else Cores(part)
    return parts
