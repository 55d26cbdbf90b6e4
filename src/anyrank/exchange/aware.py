"""Whether MPI may be given a GPU's memory: it is asked, and then tried, for some that say yes crash or send old bytes.

Imported only where a rank has a GPU. As a program, `python -m anyrank.exchange.aware BODY INDEX`, it is the process
that tries it first.
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
from anyrank.errors import UsageError, spans
from anyrank.world import World

#: Bytes of the messages that are tried: MPIs send small ones at once, and large ones when they are awaited.
SIZES = (256, 1 << 22)
#: Seconds after which something hangs.
LIMIT = 60.0
#: Memory that stays, for MPI may write to it yet.
_UNFINISHED: list[Any] = []
#: Variables that make a process one of a launcher's; without them it is an MPI job of its own.
_LAUNCHERS = (
    *("PMI", "HYD", "MPI_LOCAL", "MPIEXEC", "PALS_", "FLUX_", "SLURM_", "PRTE_", "JSM_", "MV2_COMM_WORLD"),
    *("OMPI_COMM_WORLD", "OMPI_UNIVERSE", "OMPI_APP_", "OMPI_FILE_", "OMPI_FIRST_", "OMPI_NUM_APP", "OMPI_ARGV"),
    *("OMPI_COMMAND", "OMPI_MCA_ess", "OMPI_MCA_orte", "OMPI_MCA_pmix", "OMPI_MCA_plm", "OMPI_MCA_prte"),
)


def choose(world: World, device: Device, wanted: str) -> tuple[str, str]:
    """How halos of GPUs travel, `direct` or `staged`, and why. Collective; `device` is a GPU on some ranks.

    `auto` takes `direct` where every such rank's MPI says that it takes a GPU's memory, a process that does it
    survives, and messages of all ranks arrive. `direct` asks for no claim; UsageError on all ranks where it fails.
    """
    if wanted == "staged":
        return "staged", "as asked"
    gpu = not device.on_host
    if wanted == "auto" and (told := _agreed(world, claim(world.comm) if gpu else "")):
        return "staged", told
    of_node = world.node_gather(gpu)
    first = gpu and of_node.index(True) == world.node_rank
    told = _agreed(world, attempt(device) if first else "") or _agreed(world, ring(world, device))
    if told and wanted == "direct":
        with world.raise_on_all_ranks():
            raise UsageError(f"--transfer direct: {told}. Use --transfer staged, or an MPI built for CUDA.")
    return ("staged", told) if told else ("direct", "messages from the memory of GPUs were tried")


def _agreed(world: World, problem: str) -> str:
    """One of the ranks' problems, with the ranks that have it; empty where none has any. Collective."""
    told: list[str] = world.comm.allgather(problem)
    one = next(filter(None, told), "")
    ranks = [rank for rank, text in enumerate(told) if text == one]
    return one and f"{one} (rank{'s' * (len(ranks) > 1)} {spans(ranks)})"


def claim(comm: MPI.Comm) -> str:
    """Empty where MPI says that it takes the memory of CUDA devices, in one of the ways there are to say so.

    These are extensions of Open MPI and of MPICH, which others share, and an info of MPI 4.1 (section 12.4.3).
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
    return "" if supported.value or "cuda" in kinds else f"{name} does not say that it takes a GPU's memory"


def command(device: Any) -> list[str]:
    """What tries it in a process of its own."""
    body = "shim" if device.name.startswith("shim") else "cupy"
    return [sys.executable, "-m", "anyrank.exchange.aware", body, str(device.index)]


def alone(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a process that no launcher started."""
    return {name: value for name, value in environment.items() if not name.startswith(_LAUNCHERS)}


def attempt(device: Device) -> str:
    """What came of a process that sends a GPU's memory to itself, where it did not end well: it dies for the job."""
    with TemporaryFile("w+", errors="replace", encoding="utf-8") as out:
        started = subprocess.Popen(
            command(device), env=alone(os.environ), stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = started.wait(LIMIT)
        except subprocess.TimeoutExpired:
            return f"a process that tried it hung for {LIMIT:g} s"
        finally:
            with suppress(ProcessLookupError):  # it may have started others
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()
        out.seek(0)
        words = out.read().strip().splitlines() or ["it said nothing"]
    if status < 0:
        return f"a process that tried it was killed by {signal.Signals(-status).name}"
    return f"a process that tried it ended with status {status}: {words[-1]}" if status else ""


def ring(world: World, device: Device) -> str:
    """What is wrong with messages from each rank to the next, from the memory where it computes; empty where nothing.

    Made as those of halos are: by requests that last, twice from the same memory, with other values. Collective.
    """
    before, after, tag, wrong = (world.rank - 1) % world.size, (world.rank + 1) % world.size, world.tag(), ""
    for nbytes in SIZES:
        what = f"messages of {nbytes} bytes from a GPU's memory"
        out, into = (device.full((nbytes,), 0, np.uint8) for _ in range(2))
        there, here = (MPI.buffer.fromaddress(device.address(memory), nbytes) for memory in (out, into))
        requests: list[Any] = []
        for turn in range(2):
            out[...] = device.from_host(_values(nbytes, world.rank, turn))
            device.synchronize()
            if not requests:
                requests.append(world.comm.Recv_init([here, MPI.BYTE], before, tag))
                requests.append(world.comm.Send_init([there, MPI.BYTE], after, tag))
            MPI.Prequest.Startall(requests)
            deadline = time.monotonic() + LIMIT
            while not MPI.Request.Testall(requests):
                if time.monotonic() > deadline:
                    _UNFINISHED.extend((out, into))
                    return f"{what} do not arrive"
            if not np.array_equal(device.to_host(into), _values(nbytes, before, turn)):
                wrong = wrong or f"{what} bring {'old' if turn else 'wrong'} bytes"
        for request in requests:
            request.Free()
    return wrong


def _values(nbytes: int, rank: int, turn: int) -> np.ndarray:
    return (np.arange(nbytes) * 7 + rank * 31 + turn * 101 + 1).astype(np.uint8)


def main(body: str, index: str) -> int:
    """Send a GPU's memory to this process itself. The exit status, with the problem on the last line."""
    device, world = open_device(body, int(index)), World()
    print(problem := ring(world, device))
    return int(bool(problem))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
