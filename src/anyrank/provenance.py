"""What made a result: versions, machine, hosts, environment, command, commits, time; no secrets."""

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

#: The variables that bear on a run begin with one of these.
_MATTER = (
    *("MPI", "OMPI_", "PMI", "PRTE_", "HYD", "I_MPI_", "MV2_", "UCX_", "FI_", "SLURM_", "PBS_", "ANYRANK_"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "NUMBA_", "CUDA_", "CUPY_", "NVIDIA_"),
    *("GLIBC_TUNABLES", "MALLOC_", "PYTHONHASHSEED", "LD_LIBRARY_PATH", "LD_PRELOAD"),
)
#: But secrets are nobody's business, and descriptors, ports and sockets are of one launch alone.
_LEFT_OUT = re.compile(
    r"TOKEN|SECRET|PASS|KEY|JWT|COOKIE|CRED|AUTH|PRIVATE|(_FD|_PORTS?|_PID|_URI\w*|_SOCK\w*|_TMPDIR)$", re.IGNORECASE
)
#: Characters of a variable, and of the command line.
_LONGEST, _COMMAND = 1000, 30_000
_FILES = {".py", ".pyx", ".h", ".cu", ".so"}

_REMEMBERED: WeakKeyDictionary[World, dict[str, Any]] = WeakKeyDictionary()


@cache
def versions() -> dict[str, str]:
    """The versions of Python, anyrank, the libraries that take part in runs, and the system, by name."""
    mpi = mpi_versions()
    system = os.uname()
    packages = {name: _installed(name) for name in ("numba", "cython", "pydantic")}
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "anyrank": anyrank_version(),
        "numpy": np.__version__,
        **{name: found for name, found in packages.items() if found},
        "h5py": h5py.__version__,
        "hdf5": h5py.version.hdf5_version,
        "mpi4py": mpi["mpi4py"],
        "mpi": mpi["library"],
        "libc": " ".join(platform.libc_ver()),
        "system": f"{system.sysname} {system.release} {system.machine}",
    }


def anyrank_version() -> str:
    """The version of anyrank, `unknown` where it runs without having been installed."""
    return _installed("anyrank") or "unknown"


def _installed(package: str) -> str:
    """The version of a package, which need not be imported for it; an empty string where there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def here() -> dict[str, Any]:
    """What tells of this process, as text; `environment` is a dict of the variables that matter.

    `commit` is the git commit checked out around the working directory, `anyrank_commit` that around
    anyrank's source; each is missing where there is none. `gpu`, `gpu_memory`, `cupy` and `cuda` are there where this
    process computes on a GPU.
    """
    commits = {"commit": commit(Path.cwd()), "anyrank_commit": commit(Path(__file__))}
    return {
        **versions(),
        **_gpu(),
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores for this process",
        "host": platform.node(),
        "environment": environment(os.environ),
        **{name: found for name, found in commits.items() if found},
        "anyrank_hash": anyrank_hash(),
    }


def remember(world: World, **facts: Any) -> dict[str, Any]:
    """Have every later `provenance` of this World tell all of `here` and these facts, and return them. Local."""
    _REMEMBERED[world] = {**here(), **{name: fact for name, fact in facts.items() if fact}}
    return _REMEMBERED[world]


def provenance(world: World, command: str) -> dict[str, Any]:
    """What tells how a file came to be: all of `here`, what is remembered, ranks, command, and the time. Local."""
    known = _REMEMBERED.get(world) or here()
    return {**known, "ranks": world.size, "command": masked(command, _COMMAND), **clocks()}


def changes(world: World, then: Mapping[str, str]) -> list[str]:
    """What results depend on and has changed since a file with the provenance `then` was written. Local."""
    now = _REMEMBERED.get(world) or here()
    watched = {"program_hash": "program file", "anyrank_hash": "anyrank", "numpy": "NumPy"}
    return [
        f"another {what} ({then[name][:12]}) than this run's ({now[name][:12]})"
        for name, what in watched.items()
        if name in then and name in now and then[name] != now[name]
    ]


def clocks() -> dict[str, str | float]:
    """Now: `utc`, and `monotonic` seconds that nobody sets, which count since `boot`, where that has a name."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {
        "utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "monotonic": round(time.monotonic(), 3),
        **({"boot": boot.read_text(encoding="utf-8").strip()} if boot.exists() else {}),
    }


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that bear on a run, without secrets and what changes at every launch; long values are cut."""
    names = [name for name in sorted(variables) if name.startswith(_MATTER) and not _LEFT_OUT.search(name)]
    return {name: masked(variables[name], _LONGEST) for name in names}


def masked(text: str, longest: int) -> str:
    """The text as UTF-8 has it, cut where it is too long, and stars for who logs in at a URL."""
    text = re.sub(r"://[^/\s]*@", "://***@", text.encode(errors="backslashreplace").decode())
    return text if len(text) <= longest else text[: longest - 1] + "…"


@cache
def anyrank_hash() -> str:
    """The SHA-256 of anyrank's own files, kernels and compiled bodies included, wherever they are installed.

    Without `jobs`, which lies among them in some installations, and bears on no result.
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
    """The SHA-256 of a file, as `sha256sum` prints it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
    """The commit of the git checkout around a path, an empty string where there is none.

    Read from git's files: starting git would fork a process with MPI in it.
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
    places = [git, git / shared.read_text(encoding="utf-8").strip()] if shared.exists() else [git]
    for place in places:
        if (place / name).exists():
            return (place / name).read_text(encoding="utf-8").strip()
        packed = place / "packed-refs"
        lines = packed.read_text(encoding="utf-8").splitlines() if packed.exists() else []
        for line in lines:
            if line.endswith(f" {name}"):
                return line.split()[0]
    return ""
