"""Test whether MPI can send and receive the memory of a GPU ("GPU-aware MPI").

Some MPI libraries report support and then crash or send stale bytes. The module therefore asks the library and then
sends test messages. It is imported only if a rank has a GPU. The program `python -m anyrank.exchange.aware BODY INDEX`
is the separate process that runs the first test.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from mpi4py import MPI

from anyrank.device import Device, open_device
from anyrank.errors import UsageError, as_ranges
from anyrank.launcher import without_launch
from anyrank.world import World

#: Bytes of the test messages: MPI sends small ones eagerly, and large ones by a rendezvous with the receiver.
SIZES = (256, 1 << 22)
#: Seconds after which a test counts as hanging.
LIMIT = 60.0
#: Buffers of unfinished requests: they are never freed, because MPI may still write to them.
_UNFINISHED: list[Any] = []
#: Prefixes of the variables of a batch job and of launchers' settings, which ranks need but a single process does not.
_OF_A_JOB = (
    *("PMI", "HYD", "MPIEXEC", "PALS_", "FLUX_", "SLURM_", "PRTE_", "JSM_"),
    *("OMPI_COMMAND", "OMPI_MCA_pmix", "OMPI_MCA_plm", "OMPI_MCA_prte"),
)


def choose_transfer(world: World, device: Device, wanted: str) -> tuple[str, str]:
    """Return how the halos of GPUs are sent, `direct` or `staged`, and the reason. Collective.

    `device` must be a GPU on at least one rank. `auto` selects `direct` if the MPI of every GPU rank reports support,
    a test process succeeds on every node, and the test messages of all ranks arrive. `direct` skips the query of the
    library, and raises UsageError on all ranks if a test fails.
    """
    if wanted == "staged":
        return "staged", "as requested"
    gpu = not device.on_host
    if wanted == "auto" and (problem := _first_problem(world, query_support(world.comm) if gpu else "")):
        return "staged", problem
    gpus_of_node = world.node_gather(gpu)
    tests_its_node = gpu and gpus_of_node.index(True) == world.node_rank
    problem = _first_problem(world, test_process(device) if tests_its_node else "")
    problem = problem or _first_problem(world, test_ring(world, device))
    if problem and wanted == "direct":
        with world.raise_on_all_ranks():
            raise UsageError(f"--transfer direct: {problem}. Use --transfer staged, or an MPI built for CUDA.")
    return ("staged", problem) if problem else ("direct", "test messages from GPU memory arrived")


def _first_problem(world: World, problem: str) -> str:
    """Return the first problem of any rank, with the ranks that have it; empty if no rank has one. Collective."""
    problems: list[str] = world.comm.allgather(problem)
    first = next(filter(None, problems), "")
    ranks = [rank for rank, text in enumerate(problems) if text == first]
    return first and f"{first} (rank{'s' * (len(ranks) > 1)} {as_ranges(ranks)})"


def query_support(comm: MPI.Comm) -> str:
    """Return an empty string if MPI reports support for the memory of CUDA devices, else the problem.

    The queries are extensions of Open MPI and of MPICH, and an info key of MPI 4.1 (section 12.4.3).
    """
    library, supported = ctypes.CDLL(MPI.__file__), ctypes.c_int(0)
    with suppress(AttributeError):
        supported.value = library.MPIX_Query_cuda_support()
    with suppress(AttributeError):
        if not supported.value:
            library.MPIX_GPU_query_support(0, ctypes.byref(supported))  # 0: MPIX_GPU_SUPPORT_CUDA
    info = comm.Get_info()
    kinds = info.Get("mpi_memory_alloc_kinds") or ""
    info.Free()
    name = " ".join(MPI.Get_library_version().split("\n")[0].strip("\0").split())
    return "" if supported.value or "cuda" in kinds else f"{name} does not report support for GPU memory"


def command(device: Any) -> list[str]:
    """Return the command line of the test process."""
    body = "shim" if device.name.startswith("shim") else "cupy"
    return [sys.executable, "-m", "anyrank.exchange.aware", body, str(device.index)]


def without_job(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of a process that belongs to no launch and no batch job."""
    return {name: value for name, value in without_launch(environment).items() if not name.startswith(_OF_A_JOB)}


def test_process(device: Device) -> str:
    """Send GPU memory in a separate process, so that a crash does not end the job; return the problem or ""."""
    with TemporaryFile("w+", errors="replace", encoding="utf-8") as out:
        process = subprocess.Popen(
            command(device),
            env=without_job(os.environ),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            return f"a test process hung for {LIMIT:g} s"
        finally:
            with suppress(ProcessLookupError):  # its child processes, too
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out.seek(0)
        lines = out.read().strip().splitlines() or ["it printed nothing"]
    if status < 0:
        return f"a test process was killed by {signal.Signals(-status).name}"
    return f"a test process ended with status {status}: {lines[-1]}" if status else ""


def test_ring(world: World, device: Device) -> str:
    """Send messages from each rank to the next, from the memory of its device; return the problem or "". Collective.

    As in a halo exchange, the requests are persistent, and the same memory is sent twice, with different values.
    """
    before, after, tag, problem = (world.rank - 1) % world.size, (world.rank + 1) % world.size, world.tag(), ""
    for nbytes in SIZES:
        messages = f"messages of {nbytes} bytes from GPU memory"
        source, target = (device.full((nbytes,), 0, np.uint8) for _ in range(2))
        send, receive = (MPI.buffer.fromaddress(device.address(memory), nbytes) for memory in (source, target))
        requests: list[Any] = []
        for turn in range(2):
            source[...] = device.from_host(_values(nbytes, world.rank, turn))
            device.synchronize()
            if not requests:
                requests.append(world.comm.Recv_init([receive, MPI.BYTE], before, tag))
                requests.append(world.comm.Send_init([send, MPI.BYTE], after, tag))
            MPI.Prequest.Startall(requests)
            deadline = time.monotonic() + LIMIT
            while not MPI.Request.Testall(requests):
                if time.monotonic() > deadline:
                    _UNFINISHED.extend((source, target))
                    return f"{messages} do not arrive"
            if not np.array_equal(device.to_host(target), _values(nbytes, before, turn)):
                problem = problem or f"{messages} deliver {'old' if turn else 'wrong'} bytes"
        for request in requests:
            request.Free()
    return problem


def _values(nbytes: int, rank: int, turn: int) -> np.ndarray:
    return (np.arange(nbytes) * 7 + rank * 31 + turn * 101 + 1).astype(np.uint8)


def main(body: str, index: str) -> int:
    """Send GPU memory from this process to itself; print the problem and return the exit status."""
    device, world = open_device(body, int(index)), World()
    print(problem := test_ring(world, device))
    return int(bool(problem))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
