"""CUDA C compiled without a card, and what the compiler says of it: for tests/device and benchmarks/gpu."""

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
#: A100, H100 and H200, B200: bytes of shared memory a multiprocessor has, beside 65536 registers and 64 warps.
CARDS = {"sm_80": 164 << 10, "sm_90": 228 << 10, "sm_100": 228 << 10}
INSTALLED = all(importlib.util.find_spec(name) for name in ("cupy", "nvidia"))
#: What CuPy adds to the options of every module, and nobody can take away: no float32 may matter in a kernel of ours.
ADDED = ("-ftz=true", "--device-as-default-execution-space")

_CALL = re.compile(r"\bcall(?:\.uni)?\s+(?:\([^)]*\)\s*,\s*)?([\w$]+)")
_FUSED = re.compile(r"^\s*(?:@!?%p\d+\s+)?((?:fma|mad)\.(?:rn|rz|rm|rp)[.\w]*)", re.MULTILINE)
_INEXACT = re.compile(r"^\s*(?:@!?%p\d+\s+)?(\w+(?:\.\w+)*\.(?:ftz|approx|full)\b[.\w]*)", re.MULTILINE)


@dataclass(frozen=True)
class Usage:
    """What one function takes on one card."""

    registers: int
    shared: int  #: bytes a block
    spilled: int  #: bytes
    block: int  #: threads: the most that it declares, or 256

    def resident(self, card: str) -> int:
        """Threads that a multiprocessor holds at once, in whole blocks of whole warps."""
        warps = -(-self.block // 32)
        by_registers = 4 * (16384 // (-(-self.registers // 8) * 256)) // warps
        by_shared = CARDS[card] // (self.shared + 1024)  # the driver keeps 1 KiB for itself
        return self.block * min(by_registers, by_shared, 64 // warps, 32)


def compile_for(card: str, name: str, code: str, *options: str) -> tuple[str, str]:
    """What the assembler says, and the PTX; raises ValueError where the code does not compile."""
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
    """What each launchable function takes."""
    found = {}
    for text in log.split("Compiling entry function ")[1:]:
        name = text.split("'")[1]
        registers = re.search(r"Used (\d+) registers", text)
        spills = re.findall(r"(\d+) bytes spill", text[: registers.start() if registers else 0])
        assert registers and len(spills) >= 2, log
        shared = re.search(r"(\d+) bytes smem", text)
        block = re.search(rf"\.entry {name}\([^)]*\)\s*\.maxntid (\d+)", ptx)
        found[name] = Usage(
            int(registers[1]), int(shared[1]) if shared else 0, sum(map(int, spills)), int(block[1]) if block else 256
        )
    return found


def inexact(ptx: str) -> list[str]:
    """Instructions that flush subnormals or round otherwise than IEEE 754 says, and calls of CUDA's library."""
    return _INEXACT.findall(ptx) + [name for name in _CALL.findall(ptx) if name.startswith(("__nv_", "__internal_"))]


def fused(ptx: str) -> list[str]:
    """Instructions that multiply and add with one rounding."""
    return _FUSED.findall(ptx)
