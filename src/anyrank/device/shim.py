"""The CPU in a GPU's clothes: runs the CUDA C of a kernel on the host, bit for bit as a GPU would.

It is there to test GPU bodies where no GPU is: slower than any other body, right in every bit.
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
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from anyrank.device import Device, Module
from anyrank.device.signature import Signature, find, signatures
from anyrank.device.source import flattened
from anyrank.errors import UsageError

HEADER = Path(__file__).with_name("cuda_on_cpu.h")
#: No contraction into fused multiply-add, as on the GPU; hidden names, so that kernels can be inlined.
FLAGS = ("-O2", "-std=c++17", "-fPIC", "-shared", "-ffp-contract=off", "-fvisibility=hidden", "-x", "c++")
#: What CUDA allows: threads in a block, and blocks and threads along each axis.
MOST_THREADS = 1024
MOST_BLOCKS = (2**31 - 1, 65535, 65535)
MOST_ALONG = (1024, 1024, 64)
_ONE_AT_A_TIME = Lock()  # threadIdx and its like are global variables


class ShimModule:
    """One `gpu.cu`, compiled by the C++ compiler."""

    def __init__(self, source: Path):
        self._source = source
        self._functions = signatures(source)
        self._library = ctypes.CDLL(str(compiled(source, self._functions)))

    def launch(self, function: str, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
        """See `Module`. Raises ValueError for a grid or block that no GPU takes."""
        find(self._functions, function, self._source).check(arguments)
        blocks, threads = _three(function, grid), _three(function, block)
        fits = all(1 <= n <= most for n, most in zip(blocks + threads, MOST_BLOCKS + MOST_ALONG, strict=True))
        if not fits or math.prod(threads) > MOST_THREADS:
            raise ValueError(f"{function}: no GPU takes a grid of {grid} blocks of {block} threads")
        # Each argument is passed as the address of its value, which an array of no dimensions holds.
        values = [
            np.array(argument.ctypes.data, np.uintp) if isinstance(argument, np.ndarray) else np.array(argument)
            for argument in arguments
        ]
        addresses = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        with _ONE_AT_A_TIME:
            self._library[f"launch_{function}"]((ctypes.c_uint * 3)(*blocks), (ctypes.c_uint * 3)(*threads), addresses)

    def zeros(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """See `Module`."""
        return np.zeros(shape, dtype)

    def to_host(self, array: np.ndarray) -> np.ndarray:
        """See `Module`."""
        return array


def _three(function: str, extents: tuple[int, ...]) -> tuple[int, ...]:
    if not 1 <= len(extents) <= 3:
        raise ValueError(f"{function}: a grid and a block have 1 to 3 axes, not {extents}")
    return (*map(int, extents), 1, 1)[:3]


class ShimDevice(Device):
    """The host, with kernels in CUDA C."""

    name = "shim"

    def load(self, source: Path) -> Module:
        """See `Device`. Raises UsageError where there is no C++ compiler, or it refuses the source."""
        return ShimModule(source)


def compiled(source: Path, functions: dict[str, Signature]) -> Path:
    """The shared library made of a CUDA C source: from the cache, or compiled now and put there."""
    compiler = _compiler()
    code = _translation(source, functions)
    identity = "\0".join([*compiler, *FLAGS, HEADER.read_text(), code])
    library = _cache() / f"{source.parent.name}-{hashlib.sha256(identity.encode()).hexdigest()[:32]}.so"
    if not library.exists():
        _compile(source, code, compiler, library)
    return library


def _compiler() -> list[str]:
    """The command of `$CXX`, or of the first C++ compiler on the PATH."""
    candidates = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    for candidate in candidates:
        command = shlex.split(candidate)
        if path := shutil.which(command[0]):
            return [path, *command[1:]]
    raise UsageError(
        f"--body shim needs a C++ compiler, and there is no {' or '.join(candidates)}. "
        "Install g++, or set CXX to a compiler."
    )


def _translation(source: Path, functions: dict[str, Signature]) -> str:
    """The CUDA C between the header and, for each function, one that launches it on the CPU."""
    text = flattened(source)
    barriers = "true" if "__syncthreads" in text else "false"
    launchers = [_launcher(signature, barriers) for signature in functions.values()]
    return f'#include "{HEADER.name}"\n#line 1 "{source}"\n{text}\n' + "".join(launchers)


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


def _compile(source: Path, code: str, compiler: list[str], library: Path) -> None:
    """Compile beside the library's place and rename: ranks that compile at once all end with a whole one."""
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder, library.name)
        command = [*compiler, *FLAGS, f"-I{HEADER.parent}", "-o", str(made), "-"]
        result = subprocess.run(command, input=code, capture_output=True, text=True)
        if result.returncode:
            raise UsageError(f"{source} does not compile with {compiler[0]}:\n{result.stderr[-2000:]}")
        made.replace(library)
