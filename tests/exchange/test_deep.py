"""Wide halos, exchanged once in several steps: fewer messages, the same bits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI
from ranks import check_collective, run_anyrank

from anyrank.errors import UsageError
from anyrank.exchange import Halo
from anyrank.exchange import advance as advance_module
from anyrank.exchange.advance import advance
from anyrank.kernel import BODIES, Kernel
from anyrank.runtime.programs import load
from anyrank.state import State
from anyrank.world import World

HEAT = Path(__file__).parents[2] / "examples" / "heat.py"
SPLITS = ("rows", "columns", "bricks")
WEIGHTS = np.random.default_rng(2).normal(size=25) / 25


def blend(*arguments):
    """A stencil that reads corner points, and a weight that it changes in place."""
    new, old, weight = arguments
    (m, n), width = new.shape, old.shape[0] - new.shape[0] + 1
    near = sum(w * old[a : a + m, b : b + n] for w, (a, b) in zip(WEIGHTS, np.ndindex(width, width), strict=False))
    new[...] = near + weight
    weight *= 0.5
    weight += 0.25 * new


BLEND = Kernel(blend)


def two_fields(world, halo_steps, halo, boundary, split="auto", shape=(20, 21)):
    state = State(world, split, halo_steps=halo_steps)
    state.field("T", shape, halo=halo, boundary=boundary, boundary_value=3.0)
    state.field("weight", shape, boundary=boundary)
    random = np.random.default_rng(7)
    for field in state.fields():
        field[...] = random.normal(size=shape)[field.layout.slices]
    return state


def expected(halo, boundary, steps, shape=(20, 21)):
    """The two arrays after `steps` steps, computed on one array with NumPy's padding."""
    random = np.random.default_rng(7)
    T, weight = random.normal(size=shape), random.normal(size=shape)
    for _ in range(steps):
        wide = T
        for axis, kind in enumerate(boundary):
            width = [(halo, halo) if a == axis else (0, 0) for a in range(2)]
            if kind == "periodic":
                wide = np.pad(wide, width, mode="wrap")
        for axis, kind in enumerate(boundary):
            width = [(halo, halo) if a == axis else (0, 0) for a in range(2)]
            if kind == "fixed":
                wide = np.pad(wide, width, constant_values=3.0)
        T = np.empty(shape)
        blend(T, wide, weight)
    return T, weight


def has_right_ghosts(field, whole):
    """Whether all points in `valid` equal those of their owner; points outside the domain are ignored."""
    region = field.extended_block(field.valid)
    index = [np.arange(s.start, s.stop) + first for s, first in zip(region, field.layout.start, strict=True)]
    return np.array_equal(field.part(region), whole[np.ix_(*(i % n for i, n in zip(index, field.shape, strict=True)))])


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize(("halo", "overlap"), [(1, True), (1, False), (2, True)])
@pytest.mark.parametrize("boundary", [("periodic", "periodic"), ("fixed", "fixed"), ("fixed", "periodic")])
def test_halo_steps_valid_ghosts_equal_their_owners_values(world, boundary, halo, overlap, monkeypatch):
    monkeypatch.setattr(advance_module, "OVERLAP_POINTS", 1 if overlap else 10**9)
    expected_by_step = [expected(halo, boundary, steps) for steps in range(6)]
    for split, halo_steps in zip(SPLITS, (2, 2, 2) if halo == 2 else (3, 5, 2), strict=True):
        state, wrong = two_fields(world, halo_steps, halo, boundary, split), []
        for step in range(1, 6):
            advance([state.T], BLEND, state.weight)
            for field, whole in zip(state.fields(), expected_by_step[step], strict=True):
                if not np.array_equal(field.local, whole[field.layout.slices]):
                    wrong.append((step, field.name))
                if field.valid != (halo * (-step % halo_steps),) * 2 or not has_right_ghosts(field, whole):
                    wrong.append((step, field.name, "ghosts"))
        check_collective(world, not wrong, f"{split}, {halo_steps} halo steps: {wrong}")
        check_collective(world, state.T.array.shape == tuple(n + 2 * halo for n in state.T.layout.local_shape))


def digest(program, world, split="auto", halo_steps=1):
    state = State(world, split, halo_steps=halo_steps)
    program.declare(state)
    program.setup(state)
    for state.step in range(6):
        program.step(state)
    return state.digest()


def check_programs(world, body):
    for program in (load("weather")(rows=21, columns=22), load(str(HEAT))(n=22)):
        plain = digest(program, World(MPI.COMM_SELF))
        BODIES.prefer(body)
        try:
            cases = zip(SPLITS, (5, 3, 2), strict=True)
            result = {(split, steps): digest(program, world, split, steps) for split, steps in cases}
        finally:
            BODIES.prefer("auto")
        check_collective(world, set(result.values()) == {plain}, f"{program.name}: {plain} {result}")


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("body", ["reference", "cython"])
def test_halo_steps_programs_have_one_digest(world, body):
    check_programs(world, body)


@pytest.mark.ranks(3)
@pytest.mark.parametrize("body", ["numba", "shim"])
def test_halo_steps_programs_have_one_digest_with_slow_bodies(world, body):
    """Bodies that take long to start."""
    check_programs(world, body)


@pytest.mark.ranks(2, 4)
def test_halo_steps_exchange_all_fields_once_in_so_many_steps(world, monkeypatch):
    travelled, start = [], Halo.start
    monkeypatch.setattr(Halo, "start", lambda halo: (travelled.append([f.name for f in halo.fields]), start(halo)))
    state = two_fields(world, 3, 1, "periodic")
    for _ in range(7):
        advance([state.T], BLEND, state.weight)
    check_collective(world, travelled == [["T", "weight"]] * 3, str(travelled))
    check_collective(world, (state.T.margin, state.weight.margin) == ((3, 3), (2, 2)))
    check_collective(world, state.T.nbytes == 2 * 8 * np.prod([n + 6 for n in state.T.layout.local_shape]))


def sharpen(new, new_other, old, other):
    """Update the first field from its neighbours and the other's value; leave the other unchanged."""
    new[...] = 2.0 * old[1:-1, 1:-1] - 0.5 * old[2:, 1:-1] + other[1:-1, 1:-1]
    new_other[...] = other[1:-1, 1:-1]


def blunt(new, old):
    new[...] = 3.0 * old[1:-1, 1:-1] - 0.5 * old[2:, 1:-1]


@pytest.mark.ranks(1, 2, 4)
def test_halo_steps_fields_may_advance_in_turn(world):
    kernel, alone, digests = Kernel(sharpen), Kernel(blunt), set()
    for halo_steps in (1, 2, 4):
        state = State(world, halo_steps=halo_steps)
        for name in ("a", "b"):
            state.field(name, (16, 18), halo=1)
            state.members[name][...] = np.cos(state.a.layout.linear)
        for _ in range(6):
            advance([state.a, state.b], kernel)
            advance([state.b, state.a], kernel)
            advance([state.b], alone)
        digests.add(state.digest())
    check_collective(world, len(digests) == 1)


@pytest.mark.ranks(1, 2)
def test_halo_steps_write_between_exchanges_is_refused(world):
    state = two_fields(world, 2, 1, "periodic")
    state.T[0, 0] = 1.0
    advance([state.T], BLEND, state.weight)
    for field in state.fields():
        with pytest.raises(UsageError, match=rf"field {field.name} is written between .* leave --halo-steps out"):
            field[0, 0] = 1.0
        for view in (field.local, field.array):
            with pytest.raises(ValueError, match="read-only"):
                view[0, 0] = 1.0
    advance([state.T], BLEND, state.weight)
    state.T[0, 0] = 5.0  # the next step exchanges
    check_collective(world, state.T.local[0, 0] == 5.0)


@pytest.mark.ranks(1)
def test_advance_field_with_another_boundary_is_refused(world):
    state = two_fields(world, 2, 1, "periodic")
    state.field("open", (20, 21), boundary="fixed")
    with pytest.raises(UsageError, match=r"axes of field open are periodic=.*False, False.*, and those of T .*True"):
        advance([state.T], BLEND, state.open)


@pytest.mark.ranks(1)
def test_halo_steps_domain_too_small_is_refused(world):
    rule = r"--halo-steps 5: the domain of 4×9 .* for a halo of 5: .* Use a larger .* Or use fewer --halo-steps\."
    with pytest.raises(UsageError, match=rule):
        two_fields(world, 5, 1, "periodic", shape=(4, 9))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pi", "--halo-steps", 2), "--halo-steps 2 must be 1, because pi does not allow more"),
        (("weather", "--halo-steps", 0), "--halo-steps 0 must be at least 1. Use --halo-steps 1 or more"),
    ],
)
def test_halo_steps_bad_value_is_refused(tmp_path, words, message):
    done = run_anyrank("run", *words, "--out", tmp_path / "run")
    assert done.returncode == 2 and message in done.stderr, done.stderr


def test_halo_steps_resume_with_others_has_the_same_digest(tmp_path):
    """The checkpoints hold only blocks: with bricks they are assembled into rows first, which reads the wide arrays."""

    def summary(*words, ranks, code=0):
        done = run_anyrank(*words, "--quiet", "--json", ranks=ranks)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    run = ("run", "weather", "--rows", 30, "--columns", 34, "--steps", 40, "--no-picture", "--out")
    plain = summary(*run, tmp_path / "plain", ranks=1)
    out = tmp_path / "deep"
    summary(*run, out, "--halo-steps", 3, "--split", "bricks", "--stop-at", 11, ranks=4, code=75)
    assert "halo_steps = 3" in (out / "run.toml").read_text()
    summary("resume", out, "--halo-steps", 5, "--split", "rows", "--stop-at", 24, ranks=3, code=75)
    assert summary("resume", out, ranks=2)["digests"] == plain["digests"]
