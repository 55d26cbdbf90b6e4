"""Compile the CUDA C of a kernel for the CPU and run it there, with the same bits as on a GPU.

This tests GPU bodies on machines without a GPU. It is slower than every other body.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from anyrank.device.signature import Signature, signatures_in
from anyrank.errors import UsageError

HEADER = Path(__file__).with_name("cuda_on_cpu.h")
#: No contraction into fused multiply-add, as on the GPU; hidden symbols, so that the compiler can inline kernels.
FLAGS = ("-O2", "-std=c++17", "-fPIC", "-shared", "-ffp-contract=off", "-fvisibility=hidden", "-x", "c++")
#: The limits of CUDA: threads per block, and blocks and threads along each axis.
MOST_THREADS = 1024
MOST_BLOCKS = (2**31 - 1, 65535, 65535)
MOST_ALONG = (1024, 1024, 64)
_LOCK = Lock()  # threadIdx, blockIdx, ... are global variables


def launch(
    library: ctypes.CDLL, function: str, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]
) -> Callable[[], None]:
    """Return a call that runs `function` on NumPy arrays and scalars; ValueError for an invalid grid or block."""
    blocks, threads = _three(function, grid), _three(function, block)
    fits = all(1 <= n <= most for n, most in zip(blocks + threads, MOST_BLOCKS + MOST_ALONG, strict=True))
    if not fits or math.prod(threads) > MOST_THREADS:
        raise ValueError(f"{function}: no GPU takes a grid of {grid} blocks of {block} threads")
    # Each argument is passed as the address of its value, which is in an array without axes.
    values = [np.array(a.ctypes.data, np.uintp) if isinstance(a, np.ndarray) else np.array(a) for a in arguments]
    addresses = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
    extents = (ctypes.c_uint * 3)(*blocks), (ctypes.c_uint * 3)(*threads)

    def run(_references: Any = (arguments, values)) -> None:  # keeps the memory alive until the run
        with _LOCK:
            library[f"launch_{function}"](*extents, addresses)

    return run


def _three(function: str, extents: tuple[int, ...]) -> tuple[int, ...]:
    if not 1 <= len(extents) <= 3:
        raise ValueError(f"{function}: a grid and a block have 1 to 3 axes, not {extents}")
    return (*map(int, extents), 1, 1)[:3]


def compiled(code: str) -> Path:
    """Return the shared library of CUDA C code, compiled now unless it is in the cache.

    Raises UsageError if there is no C++ compiler or the code does not compile.
    """
    compiler = _compiler()
    text = _translation(code)
    identity = "\0".join([*compiler, *FLAGS, HEADER.read_text(encoding="utf-8"), text])
    library = _cache() / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.so"
    if not library.exists():
        _compile(text, compiler, library)
    return library


def _compiler() -> list[str]:
    """Return the command in `$CXX`, or the first C++ compiler on the PATH."""
    candidates = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    for candidate in candidates:
        command = shlex.split(candidate)
        if path := shutil.which(command[0]):
            return [path, *command[1:]]
    raise UsageError(
        f"--body shim needs a C++ compiler, and there is no {' or '.join(candidates)}. "
        "Install g++, or set CXX to a compiler."
    )


def _translation(code: str) -> str:
    """Return the CUDA C with the header before it, and after it a launcher for each function."""
    barriers = "true" if "__syncthreads" in code else "false"
    launchers = [_launcher(signature, barriers) for signature in signatures_in(code, "CUDA C").values()]
    return f'#include "{HEADER.name}"\n{code}\n' + "".join(launchers)


def _launcher(signature: Signature, barriers: str) -> str:
    values = ", ".join(
        f"*({'const ' * parameter.const}{parameter.c}{'*' * parameter.pointer}*)values[{i}]"
        for i, parameter in enumerate(signature.parameters)
    )
    return (
        f'extern "C" __attribute__((visibility("default"))) void launch_{signature.name}'
        "(const unsigned* grid, const unsigned* block, void** values) {\n"
        f"    cuda_on_cpu::launch<{barriers}>(grid, block, [&] {{ {signature.name}({values}); }});\n}}\n"
    )


def _cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "anyrank"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--body shim keeps compiled kernels in {folder}: {error.strerror}. Set XDG_CACHE_HOME elsewhere."
        ) from error
    return folder


def _compile(code: str, compiler: list[str], library: Path) -> None:
    """Compile under a temporary name and rename: ranks that compile at the same time all get a complete library."""
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        temporary = Path(folder, library.name)
        command = [*compiler, *FLAGS, f"-I{HEADER.parent}", "-o", str(temporary), "-"]
        result = subprocess.run(command, input=code, capture_output=True, encoding="utf-8", errors="replace")
        if result.returncode:
            raise UsageError(f"CUDA C does not compile with {compiler[0]}:\n{result.stderr[-2000:]}")
        temporary.replace(library)
