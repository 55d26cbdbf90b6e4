"""A process that holds one peer and does what it reads: python worker.py FILE SIZE CORES FOLDER, under mpiexec or not.

It says what it is, then obeys lines: `run` gives seconds, `answer PATH` writes the answer there; the end of the
input ends it. Between lines it sleeps, so that it takes nothing from the peer that is measured.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from peer import Peer, load


def told(comm: Any) -> str:
    """Return the next line, on all ranks; a rank that waits sleeps, because MPI would wait in a loop."""
    line = sys.stdin.readline() if comm is None or comm.rank == 0 else ""
    if comm is None:
        return line
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(0.002)
    return comm.bcast(line)


def measured(peer: Peer, comm: Any) -> dict[str, float]:
    """Return the seconds of one run, on the slowest rank."""
    peer.tidy()
    if comm is not None:
        comm.Barrier()
    began = time.perf_counter()
    own = peer.run()
    found = {"seconds": time.perf_counter() - began, **(own or {})}
    peer.rest()
    if comm is not None:
        found = {name: max(comm.allgather(value)) for name, value in found.items()}
    return found


def main() -> None:
    file, size, cores, folder = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a peer prints is not an answer
    comm = None
    if "--ranks" in sys.argv:
        from mpi4py import MPI

        comm = MPI.COMM_WORLD
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {allowed[comm.rank % len(allowed)]})
    elif cores == 1:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    kind = load(file)
    peer = kind(size, cores, comm, folder)
    reply: dict[str, Any] = {"versions": {name: version(name) for name in kind.packages}, "details": peer.details}
    while True:
        if comm is None or comm.rank == 0:
            print(json.dumps(reply), file=answers, flush=True)
        line = told(comm).split(maxsplit=1)
        if not line:
            return
        if line[0] == "run":
            reply = measured(peer, comm)
        else:
            answer, reply = peer.answer(), {}
            if comm is None or comm.rank == 0:
                np.savez(line[1].strip(), **answer)


if __name__ == "__main__":
    main()
