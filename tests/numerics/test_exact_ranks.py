"""Exact reductions over ranks: the same for every split, and arrays whose ranks are not named are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numerics.equality import same
from ranks import check_collective, run_anyrank

from anyrank import exact
from anyrank.device.emulated import fake
from anyrank.errors import AnyrankError, UsageError
from anyrank.exact import Accumulator
from anyrank.kernel import BODIES
from anyrank.layout import Layout
from anyrank.state import State
from anyrank.world import World

FUNCTIONS = (exact.sum, exact.mean, exact.norm, exact.min, exact.max)


def accumulator_of(x):
    accumulator = Accumulator()
    accumulator.add(x)
    return accumulator


def data(n):
    random = np.random.default_rng(9)
    return random.standard_normal(n) * 2.0 ** random.integers(-400, 400, n)


@pytest.mark.ranks(1, 2, 3, 4)
def test_exact_results_do_not_depend_on_the_ranks(world):
    for n in (1, 3, 1000, 100_003):
        x, y = data(n), data(n)[::-1]
        mine = Layout.blocks(n, world).slices
        for function in FUNCTIONS:
            check_collective(world, function(x[mine], world) == function(x, local=True), f"{function.__name__} of {n}")
        check_collective(world, exact.dot(x[mine], y[mine], world) == exact.dot(x, y, local=True), f"dot of {n}")
    check_collective(world, exact.sum(x[world.rank :: world.size], world) == math.fsum(x.tolist()))


@pytest.mark.ranks(1, 2, 3, 4)
def test_accumulator_limbs_do_not_depend_on_the_ranks(world):
    x = data(5000)
    mine = accumulator_of(x[world.rank :: world.size]).allreduce(world)
    check_collective(world, np.array_equal(mine.limbs, accumulator_of(x).limbs))


@pytest.mark.ranks(1, 2, 3, 4)
def test_exact_fields_are_reduced_without_their_halo(world):
    whole = data(13 * 17).reshape(13, 17)
    expected = [function(whole, local=True) for function in FUNCTIONS]
    for body in ("auto", "shim"):
        BODIES.prefer(body)
        state = State(world)
        field = state.field("T", (13, 17), halo=2)
        field.storage[...] = math.nan
        field[...] = whole[field.layout.slices]
        check_collective(world, [function(field) for function in FUNCTIONS] == expected, body)
        check_collective(world, exact.dot(field, field) == exact.dot(whole, whole, local=True), body)
        before = fake.copied["out"]
        exact.max(field)
        check_collective(world, fake.copied["out"] - before <= 16, f"{body}, the extreme alone leaves a GPU")
        hits = state.field("hits", (5, 7), np.int64)
        hits[...] = 3
        check_collective(world, exact.sum(hits) == 105 and type(exact.sum(hits)) is int, body)
        short = state.field("short", (2,))
        short[...] = -2.5
        check_collective(world, exact.sum(short) == -5 and exact.max(short) == -2.5, f"{body}, ranks without rows")
    BODIES.prefer("auto")


@pytest.mark.ranks(2, 4)
def test_exact_ranks_without_elements_and_special_values(world):
    last = world.rank == world.size - 1
    check_collective(world, exact.max(np.array([-5.0] if last else []), world) == -5.0)
    check_collective(world, exact.min(np.array([2**64 - 1] if last else [], np.uint64), world) == 2**64 - 1)
    zero = np.array([-0.0 if last else 0.0])
    check_collective(world, same(exact.min(zero, world), -0.0) and same(exact.max(zero, world), 0.0))
    signs = np.array([math.inf if last else -math.inf])
    check_collective(world, math.isnan(exact.sum(signs, world)) and exact.min(signs, world) == -math.inf)
    mixed = np.array([math.nan if last else 1.0])
    check_collective(world, math.isnan(exact.min(mixed, world)) and math.isnan(exact.max(mixed, world)))
    for function in (exact.mean, exact.min, exact.max):
        try:
            function(np.zeros(0), world)
            refused = False
        except AnyrankError:
            refused = True
        check_collective(world, refused, function.__name__)


ARRAYS = {
    "array": (np.zeros((5, 16)), "(5, 16)"),
    "list": ([1.0, 2.0], "(2,)"),
    "number": (2.5, "()"),
}


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_exact_array_without_world_or_local_is_refused(function, kind):
    x, shape = ARRAYS[kind]
    call = f"exact.{function.__name__}"
    with pytest.raises(UsageError) as refusal:
        function(x)
    text = str(refusal.value)
    assert (
        text.startswith(f"{call} at test_exact_ranks.py:") and " in test_exact_array_without_world_or_local_is_" in text
    )
    assert f"of shape {shape} here, holds elements of this rank alone" in text
    assert all(f"{call}({fix})" in text for fix in ("state.T", "x, world=state.world", "x, local=True"))


def test_exact_dot_of_arrays_without_world_is_refused():
    with pytest.raises(UsageError, match=r"exact\.dot\(state\.T, state\.u\) with a Field, exact\.dot\(x, y, world="):
        exact.dot(np.zeros(3), np.zeros(3))


def test_exact_gpu_array_without_world_is_refused():
    BODIES.prefer("shim")
    with pytest.raises(UsageError, match=r"of shape \(3, 2\) here"):
        exact.sum(BODIES.device.full((3, 2), 1.0, np.float64))
    BODIES.prefer("auto")


@pytest.mark.ranks(1, 2, 3)
def test_exact_field_is_reduced_over_its_own_world_or_locally(world):
    """`local=True` reduces this rank's part; another world is refused; an array beside a Field has its world."""
    state = State(world)
    field, n = state.field("T", (7,)), 7
    field[...] = field.indices[0]
    mine = field.layout.slices[0]
    check_collective(world, exact.sum(field, local=True) == sum(range(mine.start, mine.stop)))
    check_collective(world, exact.max(field, local=True) == mine.stop - 1)
    check_collective(world, exact.sum(field) == exact.sum(field, world) == exact.sum(field.local, world=world) == 21)
    ones = np.ones(field.local.shape)
    check_collective(world, exact.dot(field, ones) == exact.dot(ones, field) == 21)
    check_collective(world, exact.dot(ones, ones, world) == n and exact.dot(ones, ones, local=True) == len(ones))
    other = World(world.comm)
    check_collective(world, refused(UsageError, "T is a Field of another world", lambda: exact.sum(field, other)))
    check_collective(world, refused(UsageError, "exclude each", lambda: exact.sum(ones, world, local=True)))
    other.close()


@pytest.mark.ranks(2, 3)
def test_exact_dot_of_fields_with_other_splits_is_refused(world):
    """On some ranks the blocks may still have equal shapes."""
    state = State(world)
    first, other = state.field("one", (2 * world.size,)), state.field("other", (2 * world.size + 1,))
    check_collective(world, refused(ValueError, "other and one are split differently", lambda: exact.dot(first, other)))


def refused(kind, words, action):
    """Whether the action raises an error of this type with these words."""
    try:
        action()
    except kind as error:
        return words in str(error)
    return False


LOCAL_SUM = """
from anyrank import Program, exact, param
class Localsum(Program):
    steps: int = param(1, "steps")
    def declare(self, state): state.field("T", (16, 16))
    def step(self, state): pass
    def result(self, state):
        return {"energy": exact.sum(state.T.local**2)}
"""


@pytest.mark.parametrize("ranks", [1, 3])
def test_exact_local_sum_in_a_program_ends_all_ranks_once(tmp_path, ranks):
    """Three ranks have blocks of 5, 5 and 6 rows, and there is still only one message."""
    (tmp_path / "localsum.py").write_text(LOCAL_SUM)
    done = run_anyrank("run", "localsum.py", "--out", "run", ranks=ranks, cwd=tmp_path)
    assert done.returncode == 2 and not (tmp_path / "run" / "result.json").exists()
    assert done.stderr.count("exact.sum at localsum.py:8 in result: an array, of shape (") == 1, done.stderr
    assert done.stderr.count("Use exact.sum(state.T)") == 1 and "Traceback" not in done.stderr


@pytest.mark.ranks(2, 3)
def test_exact_rank_without_elements_does_not_set_the_type(world):
    """An empty list has the type float64, whatever the other ranks have."""
    for dtype in (np.int64, np.uint64, np.float32, bool):
        x = np.array([1, 0, 1], dtype) if world.rank == 0 else []
        result = [getattr(exact, call)(x, world=world) for call in ("sum", "min", "max")]
        right = [2.0, 0.0, 1.0] if dtype is np.float32 else [2, 0, 1]
        check_collective(world, repr(result) == repr(right), f"{dtype}: {result}")
        check_collective(world, repr(exact.dot(x, x, world=world)) == repr(right[0]))
    large = np.array([2**53 + 1]) if world.rank else np.empty(0)
    check_collective(world, exact.sum(large, world=world) == (2**53 + 1) * (world.size - 1))
    nothing = np.empty(0, np.int64) if world.rank else []
    check_collective(world, repr(exact.sum(nothing, world=world)) == "0.0")
