"""The process of one peer: python worker.py FILE SIZE CORES FOLDER [--ranks], alone or under mpiexec.

It prints its versions and details, and then executes the lines that it reads: `run` prints the seconds of a run, and
`answer PATH` writes the answer to a file. It exits at the end of the input. Between lines it sleeps, so that it does
not slow down the peer that is measured.
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


def next_line(comm: Any) -> str:
    """Return the next line on all ranks. Waiting ranks sleep, because MPI itself waits in a busy loop."""
    line = sys.stdin.readline() if comm is None or comm.rank == 0 else ""
    if comm is None:
        return line
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(0.002)
    return comm.bcast(line)


def time_run(peer: Peer, comm: Any) -> dict[str, float]:
    """Run once and return the seconds of the slowest rank."""
    peer.clean_up()
    if comm is not None:
        comm.Barrier()
    start = time.perf_counter()
    extra = peer.run()
    result = {"seconds": time.perf_counter() - start, **(extra or {})}
    peer.release_memory()
    if comm is not None:
        result = {name: max(comm.allgather(value)) for name, value in result.items()}
    return result


def main() -> None:
    file, size, cores, folder = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of the peer goes to stderr, because replies go to the original stdout
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
        line = next_line(comm).split(maxsplit=1)
        if not line:
            return
        if line[0] == "run":
            reply = time_run(peer, comm)
        else:
            answer, reply = peer.answer(), {}
            if comm is None or comm.rank == 0:
                np.savez(line[1].strip(), **answer)


if __name__ == "__main__":
    main()
