"""Philox4x32-10: the published answers, and the same bits from every body."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from anyrank.device import open_device
from anyrank.kernel import Kernel
from anyrank.kernels import philox
from anyrank.kernels.philox import example
from anyrank.numerics.random import _quantile_table, quantile

KNOWN = Path(__file__).parents[1] / "answers" / "random123" / "philox4x32-10.txt"
ROWS = [
    [int(word, 16) for word in line.split()[2:]]
    for line in KNOWN.read_text().splitlines()
    if line.startswith("philox4x32 10")
]


@pytest.fixture(params=["reference", "cython", "shim"])
def words(request):
    return Kernel("philox", "words").load(request.param, open_device(request.param))


def test_philox_answer_file_has_three_rows():
    assert len(ROWS) == 3 and all(len(row) == 10 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=["zeros", "ones", "pi"])
def test_philox_gives_the_known_answers(words, row):
    c0, c1, c2, c3, k0, k1, *expected = row
    out = np.zeros((1, 4), np.uint32)
    words(k0 | k1 << 32, c3, c2, np.array([c0 | c1 << 32], np.uint64), out)
    assert out[0].tolist() == expected


@pytest.mark.parametrize("size", [0, 1, 2, 15, 16, 17, 1000])
def test_philox_bodies_give_the_references_bits(words, size):
    (seed, stream, step, index, expected), amount, unit = example("words", size)
    Kernel("philox", "words").load("reference", open_device("reference"))(seed, stream, step, index, expected)
    out = np.zeros_like(expected)
    words(seed, stream, step, index, out)
    np.testing.assert_array_equal(out, expected)
    assert (amount, unit) == (size, "blocks")


def test_philox_depends_on_every_part_of_the_key(words):
    index = np.array([3, 3 << 32], np.uint64)
    index.flags.writeable = False
    seen = set()
    for key in [(1, 0, 0), (1 << 32, 0, 0), (0, 1, 0), (0, 1 << 24, 0), (0, 0, 1), (2**64 - 1, 2**32 - 1, 2**32 - 1)]:
        out = np.zeros((2, 4), np.uint32)
        words(*key, index, out)
        seen |= {tuple(row) for row in out.tolist()}
    assert len(seen) == 12


@pytest.mark.parametrize("body", ["shim", pytest.param("cupy", marks=pytest.mark.gpu)])
def test_gpu_quantiles_equal_the_hosts_up_to_the_tails(tmp_path, body):
    """Indices that give these values cannot be found, so the function is called directly."""
    source, gpu = tmp_path / "gpu.cu", open_device(body)
    source.write_text(f"""#include "{Path(philox.__file__).with_name("quantile.h")}"
        extern "C" __global__ void quantiles(const double* table, double* q) {{
            q[threadIdx.x] = tail_quantile(*reinterpret_cast<const constants*>(table), q[threadIdx.x]);
        }}""")
    edges = [0, 1, 2, *(int(2**53 * p) for p in (math.exp(-25), 0.0749999))]  # exp(−25): where the far tail begins
    k = np.array([*edges, *(2.0 ** np.random.default_rng(1).uniform(0, 49, 500))], np.uint64)
    k = np.concatenate([k, k + np.uint64(1), np.uint64(2**53 - 1) - k])[:1024]
    q = (2 * k.astype(np.int64) + 1 - 2**53) * 2.0**-54
    on_gpu, module = gpu.from_host(q), gpu.load(source)
    for part in (on_gpu[:512], on_gpu[512:]):
        module.launch("quantiles", (1,), (part.size,), (_quantile_table(gpu), part))
    assert gpu.to_host(on_gpu).tobytes() == quantile(k).tobytes()
