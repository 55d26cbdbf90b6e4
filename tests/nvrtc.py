"""Compilation of CUDA C without a GPU, and the compiler's resource usage: for tests/device and benchmarks/gpu."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

import anyrank
from anyrank import kernels
from anyrank.device.gpu import OPTIONS

_ROOTS = (*kernels.__path__, *anyrank.__path__)
SOURCES = sorted({path.resolve() for root in _ROOTS for path in Path(root).rglob("*.cu")})
#: A100, H100 and H200, B200: bytes of shared memory per multiprocessor; each has 65536 registers and 64 warps.
CARDS = {"sm_80": 164 << 10, "sm_90": 228 << 10, "sm_100": 228 << 10}
INSTALLED = all(importlib.util.find_spec(name) for name in ("cupy", "nvidia"))
#: Options that CuPy adds to every module and that cannot be removed: no kernel of ours may depend on float32.
ADDED = ("-ftz=true", "--device-as-default-execution-space")

_CALL = re.compile(r"\bcall(?:\.uni)?\s+(?:\([^)]*\)\s*,\s*)?([\w$]+)")
_FUSED = re.compile(r"^\s*(?:@!?%p\d+\s+)?((?:fma|mad)\.(?:rn|rz|rm|rp)[.\w]*)", re.MULTILINE)
_INEXACT = re.compile(r"^\s*(?:@!?%p\d+\s+)?(\w+(?:\.\w+)*\.(?:ftz|approx|full)\b[.\w]*)", re.MULTILINE)


@dataclass(frozen=True)
class Usage:
    """The resources of one function on one GPU."""

    registers: int
    shared: int  # bytes per block
    spilled: int  #: bytes
    block: int  # threads: the declared maximum, or 256

    def resident(self, card: str) -> int:
        """Threads that one multiprocessor can hold at once, in whole blocks of whole warps."""
        warps = -(-self.block // 32)
        by_registers = 4 * (16384 // (-(-self.registers // 8) * 256)) // warps
        by_shared = CARDS[card] // (self.shared + 1024)  # the driver reserves 1 KiB
        return self.block * min(by_registers, by_shared, 64 // warps, 32)


def compile_for(card: str, name: str, code: str, *options: str) -> tuple[str, str]:
    """The output of the assembler, and the PTX; raises ValueError if the code does not compile."""
    from cupy_backends.cuda.libs import nvrtc

    program = nvrtc.createProgram(code, name, [], [])
    try:
        nvrtc.compileProgram(program, [*OPTIONS, *ADDED, f"--gpu-architecture={card}", "--ptxas-options=-v", *options])
        return nvrtc.getProgramLog(program), nvrtc.getPTX(program).decode(errors="replace")
    except nvrtc.NVRTCError as error:
        raise ValueError(f"{name} does not compile for {card}:\n{nvrtc.getProgramLog(program)}") from error
    finally:
        nvrtc.destroyProgram(program)


def usage(log: str, ptx: str) -> dict[str, Usage]:
    """The resources of each kernel function."""
    result = {}
    for text in log.split("Compiling entry function ")[1:]:
        name = text.split("'")[1]
        registers = re.search(r"Used (\d+) registers", text)
        spills = re.findall(r"(\d+) bytes spill", text[: registers.start() if registers else 0])
        assert registers and len(spills) >= 2, log
        shared = re.search(r"(\d+) bytes smem", text)
        block = re.search(rf"\.entry {name}\([^)]*\)\s*\.maxntid (\d+)", ptx)
        result[name] = Usage(
            int(registers[1]), int(shared[1]) if shared else 0, sum(map(int, spills)), int(block[1]) if block else 256
        )
    return result


def inexact(ptx: str) -> list[str]:
    """Instructions that flush subnormals or round differently from IEEE 754, and calls of CUDA's library."""
    return _INEXACT.findall(ptx) + [name for name in _CALL.findall(ptx) if name.startswith(("__nv_", "__internal_"))]


def fused(ptx: str) -> list[str]:
    """Instructions that multiply and add with one rounding."""
    return _FUSED.findall(ptx)
