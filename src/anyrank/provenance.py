"""The provenance of a result: versions, machine, hosts, environment, command, commits, time; no secrets."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import h5py
import numpy as np

import anyrank
import anyrank.kernels
from anyrank.device.gpu import Gpu
from anyrank.kernel import BODIES
from anyrank.world import World, mpi_versions

#: The prefixes of environment variables that affect a run.
_MATTER = (
    *("MPI", "OMPI_", "PMI", "PRTE_", "HYD", "I_MPI_", "MV2_", "UCX_", "FI_", "SLURM_", "PBS_", "ANYRANK_"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "NUMBA_", "CUDA_", "CUPY_", "NVIDIA_"),
    *("GLIBC_TUNABLES", "MALLOC_", "PYTHONHASHSEED", "LD_LIBRARY_PATH", "LD_PRELOAD"),
)
#: Variables that are left out: secrets, and the descriptors, ports and sockets of one launch.
_LEFT_OUT = re.compile(
    r"TOKEN|SECRET|PASS|KEY|JWT|COOKIE|CRED|AUTH|PRIVATE|(_FD|_PORTS?|_PID|_URI\w*|_SOCK\w*|_TMPDIR)$", re.IGNORECASE
)
#: The largest number of characters of a variable, and of the command line.
_LONGEST, _COMMAND = 1000, 30_000
_FILES = {".py", ".pyx", ".h", ".cu", ".so"}

#: The metadata that `remember` stored for each World.
_REMEMBERED: WeakKeyDictionary[World, dict[str, Any]] = WeakKeyDictionary()


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python, anyrank, its libraries and the system, by name."""
    mpi = mpi_versions()
    system = os.uname()
    packages = {name: _installed(name) for name in ("numba", "cython", "pydantic")}
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "anyrank": anyrank_version(),
        "numpy": np.__version__,
        **{name: number for name, number in packages.items() if number},
        "h5py": h5py.__version__,
        "hdf5": h5py.version.hdf5_version,
        "mpi4py": mpi["mpi4py"],
        "mpi": mpi["library"],
        "libc": " ".join(platform.libc_ver()),
        "system": f"{system.sysname} {system.release} {system.machine}",
    }


def anyrank_version() -> str:
    """Return the version of anyrank, `unknown` if it is not installed."""
    return _installed("anyrank") or "unknown"


def _installed(package: str) -> str:
    """Return the version of a package, without importing it; an empty string if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def here() -> dict[str, Any]:
    """Return the metadata of this process as text; `environment` is a dict of the variables that affect a run.

    `commit` is the commit of the git checkout that contains the working directory, `anyrank_commit` that of the source
    of anyrank; each is missing if there is none. `gpu`, `gpu_memory`, `cupy` and `cuda` are present if this process
    computes on a GPU.
    """
    commits = {"commit": commit(Path.cwd()), "anyrank_commit": commit(Path(__file__))}
    return {
        **versions(),
        **_gpu(),
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores for this process",
        "host": platform.node(),
        "environment": environment(os.environ),
        **{name: number for name, number in commits.items() if number},
        "anyrank_hash": anyrank_hash(),
    }


def remember(world: World, **more: Any) -> dict[str, Any]:
    """Store the metadata of this process and `more` for later calls of `provenance`; return them. Not collective."""
    _REMEMBERED[world] = {**here(), **{name: value for name, value in more.items() if value}}
    return _REMEMBERED[world]


def provenance(world: World, command: str) -> dict[str, Any]:
    """Return the provenance of a file: the stored metadata, the ranks, the command and the time. Not collective."""
    metadata = _REMEMBERED.get(world) or here()
    return {**metadata, "ranks": world.size, "command": masked(command, _COMMAND), **clocks()}


def changes(world: World, old: Mapping[str, str]) -> list[str]:
    """Return the differences from the provenance `old` of a file that can change results. Not collective."""
    now = _REMEMBERED.get(world) or here()
    compared = {"program_hash": "program file", "anyrank_hash": "anyrank", "numpy": "NumPy"}
    return [
        f"another {what} ({old[name][:12]}) than this run's ({now[name][:12]})"
        for name, what in compared.items()
        if name in old and name in now and old[name] != now[name]
    ]


def clocks() -> dict[str, str | float]:
    """Return the time: `utc`, and `monotonic` seconds since the boot with the identifier `boot`, if there is one."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {
        "utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "monotonic": round(time.monotonic(), 3),
        **({"boot": boot.read_text(encoding="utf-8").strip()} if boot.exists() else {}),
    }


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that affect a run, without secrets and those of one launch; long values are truncated."""
    names = [name for name in sorted(variables) if name.startswith(_MATTER) and not _LEFT_OUT.search(name)]
    return {name: masked(variables[name], _LONGEST) for name in names}


def masked(text: str, longest: int) -> str:
    """Return the text in valid UTF-8, truncated to `longest` characters, with the login of URLs replaced by stars."""
    text = re.sub(r"://[^/\s]*@", "://***@", text.encode(errors="backslashreplace").decode())
    return text if len(text) <= longest else text[: longest - 1] + "…"


@cache
def anyrank_hash() -> str:
    """Return the SHA-256 of the files of anyrank, with kernels and compiled bodies, wherever they are installed.

    The folder `jobs`, which is among them in some installations, is left out, because it affects no result.
    """
    files = {
        f"{prefix}{path.relative_to(root)}": path
        for prefix, package in (("", anyrank), ("kernels/", anyrank.kernels))
        for root in package.__path__
        for path in Path(root).rglob("*.*")
        if path.suffix in _FILES and path.relative_to(root).parts[0] != "jobs"
    }
    lines = [f"{file_hash(files[name])}  {name}\n" for name in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file in the format of `sha256sum`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _gpu() -> dict[str, str]:
    gpu = BODIES.device
    if not isinstance(gpu, Gpu):
        return {}
    runtime = gpu.cupy.cuda.runtime
    return {
        "gpu": gpu.card,
        "gpu_memory": f"{gpu.free_memory()[1] / 1e9:.1f} GB",
        "cupy": gpu.cupy.__version__,
        "cuda": f"{runtime.runtimeGetVersion()}, driver {runtime.driverGetVersion()}",
    }


def _processor() -> str:
    with suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def commit(inside: Path) -> str:
    """Return the commit of the git checkout that contains a path, or an empty string.

    It is read from the files of git, because a call of git would fork a process that uses MPI.
    """
    for folder in (inside, *inside.parents):
        git = folder / ".git"
        try:
            if git.is_file():  # a worktree or a submodule: "gitdir: FOLDER"
                git = folder / git.read_text(encoding="utf-8").partition(": ")[2].strip()
            if git.is_dir():
                return _head(git)
        except OSError:
            return ""
    return ""


def _head(git: Path) -> str:
    head = (git / "HEAD").read_text(encoding="utf-8").strip()
    if not head.startswith("ref: "):
        return head
    name = head[5:]
    shared = git / "commondir"
    folders = [git, git / shared.read_text(encoding="utf-8").strip()] if shared.exists() else [git]
    for folder in folders:
        if (folder / name).exists():
            return (folder / name).read_text(encoding="utf-8").strip()
        packed = folder / "packed-refs"
        lines = packed.read_text(encoding="utf-8").splitlines() if packed.exists() else []
        for line in lines:
            if line.endswith(f" {name}"):
                return line.split()[0]
    return ""
