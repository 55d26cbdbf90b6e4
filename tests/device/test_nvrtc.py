"""Every CUDA kernel compiles for all supported GPUs, without a GPU: no spills, no fused arithmetic."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from nvrtc import CARDS, INSTALLED, SOURCES, Usage, compile_for, fused, inexact, usage

from anyrank.device.signature import signatures
from anyrank.device.source import inline_includes

pytestmark = pytest.mark.skipif(
    not INSTALLED and "CI" not in os.environ, reason="needs CuPy and NVRTC: pip install -e .[gpu]"
)


def test_nvrtc_all_sources_are_listed() -> None:
    names = {f"{path.parent.name}/{path.name}" for path in SOURCES}
    assert names >= {"shallow_water/gpu.cu", "quarter_circle/gpu.cu", "philox/gpu.cu"}
    assert len(names) == len(SOURCES)


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_nvrtc_kernel_has_no_spills_and_exact_arithmetic(source: Path, card: str) -> None:
    code = inline_includes(source)
    log, ptx = compile_for(card, str(source), code)
    used = usage(log, ptx)
    assert set(used) == set(signatures(source)), "these functions cannot be launched, or were not compiled"
    assert not {name: amounts for name, amounts in used.items() if amounts.spilled}
    assert inexact(ptx) == []
    assert re.search(r"\bfmaf?\(|__fma", code) or fused(ptx) == [], "fused arithmetic that the kernel does not write"


def test_nvrtc_spill_and_fused_operation_are_detected() -> None:
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
    log, ptx = compile_for("sm_90", "greedy.cu", code, "--maxrregcount=24")
    assert usage(log, ptx)["greedy"].spilled > 0
    assert fused(ptx) == []
    _, ptx = compile_for("sm_90", "greedy.cu", code, "--fmad=true")
    assert "fma.rn.f64" in fused(ptx)


@pytest.mark.parametrize(
    ("expression", "options", "instruction"),
    [
        ("a[0] / 3.f", ["--prec-div=false"], "div.full.ftz.f32"),
        ("sqrtf(a[0])", ["--prec-sqrt=false"], "sqrt.approx.ftz.f32"),
        ("a[0] + 1.f", [], "add.rn.ftz.f32"),
        ("__sinf(a[0])", [], "sin.approx.ftz.f32"),
        ("(float)pow((double)a[0], 1.7)", [], "__internal_accurate_pow"),
    ],
)
def test_nvrtc_inexact_arithmetic_is_detected(expression: str, options: list[str], instruction: str) -> None:
    code = f'extern "C" __global__ void inexact(float* a) {{ a[threadIdx.x] = {expression}; }}'
    _, ptx = compile_for("sm_90", "inexact.cu", code, *options)
    assert instruction in inexact(ptx)


@pytest.mark.parametrize(
    ("used", "card", "threads"),
    [
        (Usage(64, 0, 0, 256), "sm_90", 1024),
        (Usage(65, 0, 0, 256), "sm_90", 768),
        (Usage(32, 0, 0, 64), "sm_80", 2048),
        (Usage(16, 0, 0, 32), "sm_80", 1024),
        (Usage(64, 43248, 0, 256), "sm_80", 768),
        (Usage(128, 0, 0, 96), "sm_100", 480),
    ],
)
def test_usage_resident_threads_follow_from_registers_and_memory(used: Usage, card: str, threads: int) -> None:
    assert used.resident(card) == threads
