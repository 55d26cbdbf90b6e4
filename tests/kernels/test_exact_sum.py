"""Exact sums in limbs: every body gives the limbs of the integer sum, for any data and layout."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from fractions import Fraction
from math import inf, isfinite, nan
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import anyrank.kernels.exact_sum as definition
from anyrank.device import open_device
from anyrank.kernel import Kernel
from anyrank.kernels.exact_sum import LIMBS, ORIGIN, SLOTS, example

BODIES = ("reference", "cython", "shim")
FLOATS = st.one_of(
    st.floats(),
    st.floats(-1, 1),
    st.sampled_from([0.0, -0.0, 5e-324, -5e-324, 2.0**-1022, 1.7976931348623157e308, -1.7976931348623157e308]),
)


def load(body, operation):
    return Kernel("exact_sum", operation).load(body, open_device(body))


@pytest.fixture(params=BODIES)
def body(request):
    return request.param


def limbs_of(fixed, plus=0, minus=0, nans=0):
    """The canonical limbs of an integer number of units of 2^−ORIGIN."""
    words = [(fixed >> 32 * k) & 0xFFFFFFFF for k in range(LIMBS - 1)]
    return np.array([*words, fixed >> 32 * (LIMBS - 1), plus, minus, nans], np.int64)


def fixed(value):
    units = Fraction(value) * 2**ORIGIN
    assert units.denominator == 1
    return units.numerator


def limbs_of_terms(terms, specials):
    """The limbs of finite Fractions and of non-finite floats."""
    signs = [sum(x == special for x in specials) for special in (inf, -inf)]
    return limbs_of(sum(map(fixed, terms)), *signs, sum(x != x for x in specials))


def limbs_of_sum(x):
    values = np.ravel(x).tolist()
    return limbs_of_terms((Fraction(v) for v in values if isfinite(v)), [v for v in values if not isfinite(v)])


def limbs_of_products(x, y):
    pairs = list(zip(np.ravel(x).tolist(), np.ravel(y).tolist(), strict=True))
    finite = (Fraction(a) * Fraction(b) for a, b in pairs if isfinite(a) and isfinite(b))
    return limbs_of_terms(finite, [a * b for a, b in pairs if not (isfinite(a) and isfinite(b))])


def sum_limbs(body, x, limbs=None):
    limbs = np.zeros(SLOTS, np.int64) if limbs is None else limbs
    load(body, "accumulate")(x, limbs)
    return limbs


def sum_product_limbs(body, x, y):
    limbs = np.zeros(SLOTS, np.int64)
    load(body, "accumulate_products")(x, y, limbs)
    return limbs


def any_bits(random, n):
    """Doubles of any sign, exponent and mantissa, including NaNs and infinities."""
    return random.integers(0, 1 << 64, n, np.uint64).view(np.float64)


def spread(random, n, low, high):
    return random.standard_normal(n) * 2.0 ** random.integers(low, high, n)


FAMILIES = {
    "normal": lambda r, n: r.standard_normal(n),
    "any bits": any_bits,
    "any finite bits": lambda r, n: np.nan_to_num(any_bits(r, n), nan=1.5, posinf=-2.0, neginf=3e-300),
    "whole": lambda r, n: r.integers(-1000, 1000, n).astype(float),
    "spread by 2^40": lambda r, n: spread(r, n, -20, 20),
    "spread by 2^120": lambda r, n: spread(r, n, -60, 60),
    "spread by 2^600": lambda r, n: spread(r, n, -300, 300),
    "subnormal": lambda r, n: r.integers(0, 1 << 52, n).view(np.float64) * r.choice([-1, 1], n),
    "near 2^-800, where folds end": lambda r, n: spread(r, n, -810, -790),
    "near 2^-900": lambda r, n: spread(r, n, -910, -890),
    "near 2^1000, where folds end": lambda r, n: spread(r, n, 990, 1010),
    "largest": lambda r, n: np.where(r.random(n) < 0.5, 1.7976931348623157e308, -1.7976931348623155e308),
    "rising": lambda r, n: 2.0 ** np.linspace(-1000, 1000, n),
    "falling": lambda r, n: -(2.0 ** np.linspace(1000, -1000, n)),
    "rare infinities": lambda r, n: np.where(r.random(n) < 0.001, -inf, r.standard_normal(n)),
    "one NaN": lambda r, n: np.where(np.arange(n) == n // 2, nan, r.standard_normal(n)),
    "zeros": lambda r, n: np.where(r.random(n) < 0.5, 0.0, -0.0),
}


@pytest.fixture(params=FAMILIES)
def numbers(request):
    return FAMILIES[request.param](np.random.default_rng(7), 2 * 1024 + 100)


@given(st.lists(FLOATS, max_size=60))
def test_exact_sum_limbs_are_those_of_the_exact_sum(body, values):
    x = np.array(values, np.float64)
    np.testing.assert_array_equal(sum_limbs(body, x), limbs_of_sum(x))


@given(st.lists(st.tuples(FLOATS, FLOATS), max_size=60))
def test_exact_sum_limbs_are_those_of_the_sum_of_products(body, pairs):
    x, y = np.array(pairs, np.float64).reshape(-1, 2).T.copy()
    np.testing.assert_array_equal(sum_product_limbs(body, x, y), limbs_of_products(x, y))


def test_exact_sum_of_every_family_of_numbers(body, numbers):
    np.testing.assert_array_equal(sum_limbs(body, numbers), limbs_of_sum(numbers))


@pytest.mark.parametrize("other", ["itself", "reversed", "normal", "inverse", "tiny"])
def test_exact_sum_of_products_of_every_family_of_numbers(body, numbers, other):
    with np.errstate(all="ignore"):
        y = {
            "itself": numbers,
            "reversed": numbers[::-1].copy(),
            "normal": np.random.default_rng(3).standard_normal(numbers.size),
            "inverse": 1 / np.where(numbers == 0, 1.0, numbers),
            "tiny": numbers * 1e-160,
        }[other]
        expected = limbs_of_products(numbers, y)
        np.testing.assert_array_equal(sum_product_limbs(body, numbers, y), expected)


@pytest.mark.parametrize("columns", [1, 2, 63, 64, 65, 1023, 1024, 1025])
@pytest.mark.parametrize("rows", [0, 1, 2, 5])
def test_exact_sum_of_rows_of_a_wider_array(body, rows, columns):
    wide = spread(np.random.default_rng(columns), 2 * rows * (columns + 3), -80, 80).reshape(2, rows, columns + 3)
    wide.flags.writeable = False
    x, y = wide[0, :, 2:-1], wide[1, :, 1:-2]
    np.testing.assert_array_equal(sum_limbs(body, x), limbs_of_sum(x))
    for a, b in ((x, y), (x.copy(), y), (x, y.copy())):
        np.testing.assert_array_equal(sum_product_limbs(body, a, b), limbs_of_products(x, y))


@given(st.data())
def test_exact_sum_any_split_and_order_gives_the_same_limbs(body, data):
    x = data.draw(st.sampled_from([*FAMILIES.values()]))(np.random.default_rng(11), 300)
    cuts = sorted(data.draw(st.lists(st.integers(0, x.size), max_size=5)))
    parts = [sum_limbs(body, part) for part in np.split(np.random.default_rng(1).permutation(x), cuts)]
    together = sum_limbs(body, np.empty(0), np.sum(parts, axis=0))
    np.testing.assert_array_equal(together, sum_limbs(body, x))


def test_exact_sum_adds_to_given_limbs_with_carries(body):
    random = np.random.default_rng(5)
    limbs = np.append(random.integers(-(2**62), 2**62, LIMBS), [3, 4, 5, 77]).astype(np.int64)
    value = sum(int(limb) << 32 * k for k, limb in enumerate(limbs[:LIMBS]))
    sum_limbs(body, np.array([1.0, inf, -inf, nan]), limbs)
    np.testing.assert_array_equal(limbs[:SLOTS], limbs_of(value + fixed(1), 4, 5, 6))
    assert limbs[SLOTS] == 77


@pytest.mark.parametrize("columns", [0, 1, 3, 300, 3000])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_exact_sum_each_row_is_added_to_its_row_of_limbs(body, rows, columns):
    """Special values, and rows whose sums need other folds, must not reach the limbs of other rows."""
    x, y = np.random.default_rng(columns).standard_normal((2, rows, columns + 2)) * 2.0 ** np.arange(rows)[:, None] ** 3
    x[1:2, :2], x = (nan, inf), x[:, :columns]
    y = y[:, 2:]
    limbs, products = np.ones((2, rows, SLOTS + 1), np.int64)
    load(body, "accumulate")(x, limbs)
    load(body, "accumulate_products")(x, y, products)
    for k in range(rows):
        one = limbs_of(sum(1 << 32 * j for j in range(LIMBS)), 1, 1, 1)
        for found, arrays in ((limbs, [x[k]]), (products, [x[k], y[k]])):
            expected = one.copy()
            load("reference", "accumulate" if found is limbs else "accumulate_products")(*arrays, expected)
            np.testing.assert_array_equal(found[k], [*expected, 1])


def test_exact_sum_rows_without_their_limbs_are_refused():
    for body in ("reference", "cython"):
        with pytest.raises(ValueError, match=r"2 sums of 3 rows|shorter"):
            load(body, "accumulate")(np.zeros((3, 4)), np.zeros((2, SLOTS), np.int64))


def test_exact_sum_products_of_other_shapes_are_refused(body):
    with pytest.raises(ValueError, match="shapes"):
        sum_product_limbs(body, np.zeros((2, 3)), np.zeros((3, 2)))


@pytest.mark.parametrize("operation", definition.OPERATIONS)
@pytest.mark.parametrize("size", [0, 1, 10, 5000])
def test_exact_sum_examples_have_their_size_and_limbs(body, operation, size):
    (*arrays, limbs), amount, unit = example(operation, size)
    load(body, operation)(*arrays, limbs)
    expected = limbs_of_sum(*arrays) if operation == "accumulate" else limbs_of_products(*arrays)
    np.testing.assert_array_equal(limbs, expected)
    assert (amount, unit) == (arrays[0].size, "numbers") and amount >= size


FULLEST = 2.0 - 2.0**-52


@pytest.mark.slow
@pytest.mark.parametrize("x", [-FULLEST, FULLEST])
def test_exact_sum_more_terms_than_a_limb_with_carries_holds(x):
    rows, columns = (1 << 16) + 1, 1 << 15
    many = np.broadcast_to(np.full(columns, x), (rows, columns))
    assert many.size > 2**31
    np.testing.assert_array_equal(sum_limbs("cython", many), limbs_of(many.size * fixed(x)))


@pytest.mark.slow
def test_exact_sum_more_products_than_a_limb_holds():
    rows, columns = (1 << 16) + 1, 1 << 15
    many = np.broadcast_to(np.full(columns, FULLEST), (rows, columns))
    expected = limbs_of(many.size * fixed(Fraction(FULLEST) ** 2))
    np.testing.assert_array_equal(sum_product_limbs("cython", many, many), expected)


def on_blocks(blocks, *arrays, body="shim"):
    limbs, inputs = np.zeros(SLOTS, np.int64), map(open_device(body).from_host, arrays) if body == "cupy" else arrays
    load(body, "accumulate" if len(arrays) == 1 else "accumulate_products")(*inputs, limbs, blocks=blocks)
    return limbs


@pytest.mark.parametrize("body", ["shim", pytest.param("cupy", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("blocks", [1, 2, 5, None])
def test_gpu_exact_sum_blocks_do_not_change_the_limbs(blocks, body):
    """All families one after the other, so that threads raise and lower their guesses; rows end anywhere in a batch."""
    random = np.random.default_rng(4)
    wide = np.concatenate([family(random, 3000) for family in FAMILIES.values()]).reshape(300, -1)
    for x in (wide[:, 5:-4], wide[:, :1], wide[:, ::2].copy(), wide[0], wide[::-1, 3:40]):
        np.testing.assert_array_equal(on_blocks(blocks, x, body=body), sum_limbs("reference", x))
        y = x[::-1].copy()
        np.testing.assert_array_equal(on_blocks(blocks, x, y, body=body), sum_product_limbs("reference", x, y))


@pytest.mark.parametrize("x", [16 - 2.0**-49, -16 + 2.0**-49, 8 + 2.0**-38 - 2.0**-49])
def test_gpu_exact_sum_folds_are_emptied_before_they_round(x):
    """Threads guess 16 from eight ones; then each number adds the largest possible amount to a fold."""
    numbers = np.append(np.ones(256 * 8), np.full(256 * 2600, x))
    np.testing.assert_array_equal(on_blocks(1, numbers), limbs_of(fixed(1) * 2048 + fixed(x) * 256 * 2600))
    factor = np.append(np.ones(256 * 4), np.full(256 * 1300, 1 - 2.0**-53))
    few = numbers[256 * 4 :][: factor.size]
    expected = fixed(1) * 1024 + fixed(Fraction(x) * Fraction(1 - 2.0**-53)) * 256 * 1300
    few[: 256 * 4], few[256 * 4 :] = 1, x
    np.testing.assert_array_equal(on_blocks(1, few, factor), limbs_of(expected))


#: The largest growth of a word per block, if the block counts its terms and propagates carries in time.
GROWTH = """#include <stdlib.h>
#include "cpu.h"
static int64_t largest(const Sum *sum) {
    int64_t found = 0;
    for (int k = 0; k < LIMBS; k++)
        if (llabs(sum->limbs[k]) > found) found = llabs(sum->limbs[k]);
    for (int e = 0; sum->slots_used && e < SPECIAL; e++) {
        if (llabs(sum->low_words[e]) > found) found = llabs(sum->low_words[e]);
        if (llabs(sum->high_words[e]) > found) found = llabs(sum->high_words[e]);
    }
    return found;
}
int64_t growth(const double *x, const double *y, int64_t *limbs) {
    static Sum sum;
    sum = (Sum){.limbs = limbs, .top = LOWEST};
    propagate_carries(&sum);
    add(&sum, x, y, BLOCK);
    int64_t found = sum.terms == BLOCK ? largest(&sum) : -1;
    sum.terms = MOST_TERMS - BLOCK;
    add(&sum, x, y, BLOCK);
    return sum.terms || largest(&sum) > WORD ? -1 : found;
}
int64_t blocks(void) { return MOST_TERMS / BLOCK; }
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
@pytest.mark.parametrize("x", [FULLEST, FULLEST * 2.0**1023, -FULLEST * 2.0**1010, -FULLEST * 2.0**500])
@pytest.mark.parametrize("products", [False, True])
def test_exact_sum_carries_propagate_before_words_overflow(x, products, tmp_path):
    """For folds, slots, and products of integers: reaching an overflow itself would take minutes."""
    library = compile_library(GROWTH, tmp_path)
    block, limbs = np.full(1024, x), np.zeros(SLOTS, np.int64)
    library.growth.restype = library.blocks.restype = ctypes.c_int64
    growth = library.growth(*pointers_to(block, block if products else None, limbs))
    assert growth > 0 and 2**32 + growth * (library.blocks() + 1) < 2**63
    twice = np.full(2048, x)
    np.testing.assert_array_equal(limbs, limbs_of_products(twice, twice) if products else limbs_of_sum(twice))


@pytest.fixture(scope="module", params=["x86-64", "x86-64-v3", "x86-64-v4"])
def library(request, tmp_path_factory):
    """cpu.h for one level of the architecture, if this machine has it."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    here = Path("/proc/cpuinfo")
    if here.exists() and request.param == "x86-64-v4" and "avx512dq" not in here.read_text():
        pytest.skip("this processor has no AVX-512")
    arguments = "const char *x, const char *y, int64_t i, int64_t j, int64_t m, int64_t n, int64_t *limbs"
    text = f'#include "cpu.h"\nvoid total({arguments}) {{ accumulate_rows(x, y, i, j, m, n, limbs); }}\n'
    return compile_library(text, tmp_path_factory.mktemp("level"), f"-march={request.param}")


def test_exact_sum_every_architecture_level_gives_the_limbs(library, numbers):
    for y in (None, numbers[::-1].copy()):
        limbs = np.zeros(SLOTS, np.int64)
        pointers = pointers_to(numbers, y, limbs)
        sizes = [ctypes.c_int64(n) for n in (0, 0, 1, numbers.size)]
        library.total(*pointers[:2], *sizes, pointers[2])
        expected = limbs_of_sum(numbers) if y is None else sum_product_limbs("reference", numbers, y)
        np.testing.assert_array_equal(limbs, expected)


def pointers_to(*arrays):
    return [array if array is None else array.ctypes.data_as(ctypes.c_void_p) for array in arrays]


def compile_library(text, folder, *more):
    source, library = folder / "total.c", folder / "total.so"
    source.write_text(text)
    flags = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC", "-DCLONES="]
    folders = [f"-I{Path(path)}" for path in definition.__path__]
    subprocess.run(["gcc", *flags, *more, *folders, source, "-o", library, "-lm"], check=True)
    return ctypes.CDLL(str(library))
