"""Every CUDA kernel compiles for the cards it may meet, without a card: no spills, no fused arithmetic."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import pytest

from anyrank import kernels
from anyrank.device.gpu import OPTIONS
from anyrank.device.signature import signatures
from anyrank.device.source import flattened

SOURCES = sorted(path for root in kernels.__path__ for path in Path(root).glob("*/gpu.cu"))
#: A100, H100 and H200, B200.
CARDS = ("sm_80", "sm_90", "sm_100")

INSTALLED = all(importlib.util.find_spec(name) for name in ("cupy", "nvidia"))
pytestmark = pytest.mark.skipif(
    not INSTALLED and "CI" not in os.environ, reason="needs CuPy and NVRTC: pip install -e .[gpu]"
)


def compile_for(card: str, source: Path, code: str, *options: str) -> tuple[str, str]:
    """What the assembler says of each function, and the PTX."""
    from cupy_backends.cuda.libs import nvrtc

    program = nvrtc.createProgram(code, source.name, [], [])
    try:
        nvrtc.compileProgram(program, [*OPTIONS, f"--gpu-architecture={card}", "--ptxas-options=-v", *options])
        return nvrtc.getProgramLog(program), nvrtc.getPTX(program).decode(errors="replace")
    except nvrtc.NVRTCError:
        pytest.fail(f"{source} does not compile for {card}:\n{nvrtc.getProgramLog(program)}")
    finally:
        nvrtc.destroyProgram(program)


def usage(log: str) -> dict[str, dict[str, int]]:
    """Registers and spilled bytes of each function."""
    found = {}
    for name, text in re.findall(r"Compiling entry function '(\w+)'(.*?)Used", log + "Used", re.DOTALL):
        after = log[log.index(f"'{name}'") :]
        registers = re.search(r"Used (\d+) registers", after)
        spills = re.findall(r"(\d+) bytes spill", text)
        assert registers and len(spills) >= 2, log
        found[name] = {"registers": int(registers[1]), "spilled": sum(map(int, spills))}
    return found


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.parent.name)
def test_a_kernel_compiles_without_spills(source: Path, card: str) -> None:
    log, _ = compile_for(card, source, flattened(source))
    used = usage(log)
    print(used)  # `pytest -rP` shows it
    assert set(used) == set(signatures(source)), "these functions cannot be launched, or were not compiled"
    assert not {name: amounts for name, amounts in used.items() if amounts["spilled"]}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.parent.name)
def test_a_kernel_has_no_fused_arithmetic_that_it_does_not_write(source: Path) -> None:
    _, ptx = compile_for("sm_90", source, flattened(source))
    fused = re.findall(r"^\s*(?:fma|mad)\.(?:rn|rz|rm|rp)[.\w]*", ptx, re.MULTILINE)
    if not re.search(r"\bfmaf?\(|__fma", flattened(source)):
        assert fused == []


def test_a_spill_and_a_fused_operation_would_be_seen(tmp_path: Path) -> None:
    """The checks above can fail: this kernel spills and, with the default options, fuses."""
    code = """extern "C" __global__ void greedy(const double* a, double* b, int n) {
        double kept[40];
        #pragma unroll
        for (int j = 0; j < 40; ++j) kept[j] = a[j];
        for (int i = 0; i < n; ++i) {
            #pragma unroll
            for (int j = 0; j < 40; ++j) kept[j] = kept[j] * kept[(j + 7) % 40] + a[i];
        }
        #pragma unroll
        for (int j = 0; j < 40; ++j) b[j] = kept[j];
    }"""
    log, ptx = compile_for("sm_90", tmp_path / "greedy.cu", code, "--maxrregcount=24")
    assert usage(log)["greedy"]["spilled"] > 0
    assert "fma.rn" not in ptx
    _, ptx = compile_for("sm_90", tmp_path / "greedy.cu", code, "--fmad=true")
    assert "fma.rn" in ptx
