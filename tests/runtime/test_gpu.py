"""Runs on GPUs that are too small, missing, broken, or that break on the way."""

from __future__ import annotations

import gc
import json
import os

import numpy as np
import pytest
from ranks import anyrank_command, check_collective, mpiexec, run_anyrank

from anyrank.device.emulated import fake
from anyrank.kernel import BODIES
from anyrank.programs.weather import Weather
from anyrank.runtime.failure import gpu_failure
from anyrank.runtime.memory import shortage
from anyrank.runtime.startup import device_of
from anyrank.state import State
from anyrank.world import World

WEATHER = ("run", "weather", "--rows", 40, "--columns", 40, "--steps", 30, "--no-picture", "--json")
#: Bytes of its fields, with a second array of those with a halo, whose rows are too short to begin cache lines, and a
#: line for those without; and of a block that is on its way into one.
NEEDED = 3 * (2 * 42**2 * 8 + 40**2 * 8 + 64) + 40**2 * 8


@pytest.fixture
def bodies():
    yield BODIES
    BODIES.prefer("auto")


def on_this_device(program: Weather) -> State:
    state = State(World())
    program.declare(state)
    program.setup(state)
    return state


def declared(world, halo_steps: int) -> State:
    state = State(world, "rows", halo_steps=halo_steps)
    state.field("a", (60, 20), halo=1)
    state.field("b", (60, 20), "i4")
    return state


@pytest.mark.ranks(3)
@pytest.mark.parametrize("halo_steps", [1, 4])
def test_what_ranks_need_of_one_card_is_added_up_and_nothing_refused_that_fits(world, monkeypatch, bodies, halo_steps):
    margin = 2 * halo_steps
    mine = 2 * (20 + margin) * (20 + margin) * 8 + (20 + margin - 2) * (20 + margin - 2) * 4 + 20 * 20 * 8
    for gpus, sharing, which in ((1, 3, "ranks 0-2"), (2, 2, "ranks 0,2")):
        for missing in (0, 1):
            monkeypatch.setenv("ANYRANK_SHIM", f"gpus={gpus} memory={sharing * mine - missing}")
            bodies.prefer("shim", world.rank)
            told = shortage(declared(world, halo_steps), "plate")
            refused = missing and (gpus == 1 or world.rank != 1)
            check_collective(world, bool(told) == bool(refused), f"{gpus} {missing} {told}")
            if told:
                free = sharing * mine - 1
                assert f"plate: the fields of {which}, and their initialisation, need {sharing * mine} bytes (" in str(
                    told
                ), told
                assert f"on shim:0 (an emulated GPU 0000:00:00.0) of {os.uname().nodename}, which" in str(told)
                assert f"has {free} bytes ({free / 1e9:.3g} GB) free of {free} bytes" in str(told)
    check_collective(
        world, device_of(world).endswith((", shared with rank(s) 2", ")", ", shared with rank(s) 0")[world.rank])
    )
    bodies.prefer("reference")
    assert shortage(declared(world, 1), "plate") is None and device_of(world) == "device host (no GPU: not requested)"


def test_more_memory_than_the_card_has_is_told_before_the_run(tmp_path):
    machine = {"ANYRANK_SHIM": "memory=1e5"}
    done = run_anyrank(*WEATHER, "--body", "shim", "--out", "r", cwd=tmp_path, env={**os.environ, **machine})
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert (
        f"weather: the fields of rank 0, and their initialisation, need {NEEDED} bytes (0.000136 GB) on shim:0"
        in done.stderr
    )
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("missing", [0, 1])
def test_memory_all_that_setup_needs_is_refused_before(tmp_path, missing):
    """With a byte less than setup takes it is not begun; with no byte more the run goes through."""
    machine = {"ANYRANK_SHIM": f"memory={NEEDED - missing}"}
    done = run_anyrank(*WEATHER, "--body", "shim", "--out", "r", cwd=tmp_path, env={**os.environ, **machine})
    assert done.returncode == 2 * missing, done.stderr
    assert (tmp_path / "r").exists() is not bool(missing) and "OutOfMemory" not in done.stderr


def test_memory_rows_apart_count_with_what_is_between(monkeypatch, bodies):
    """Rows that begin cache lines: what the card then has less is what was reckoned, to the byte."""
    bodies.prefer("shim")
    shape = (9, 300)
    for dtype, halo in (("f8", 1), ("f4", 2), ("i2", 0)):
        gc.collect()
        free, _ = BODIES.device.free_memory()
        state = State(World())
        field = state.field("a", shape, dtype, halo=halo)
        state.allocate()
        taken = free - BODIES.device.free_memory()[0]
        assert taken > field.nbytes or dtype == "i2"
        trial = State(World())
        trial.field("a", shape, dtype, halo=halo)
        needed = taken * (2 if halo else 1) + field.local.nbytes
        for missing in (0, 1):
            monkeypatch.setattr(BODIES.device, "free_memory", lambda missing=missing: (needed - missing, 10**9))  # noqa: B023
            assert bool(shortage(trial, "plate")) is bool(missing), (dtype, halo)
        monkeypatch.undo()


def test_one_rank_without_a_gpu_is_told_once_and_nothing_is_made(tmp_path):
    run = anyrank_command(*WEATHER, "--body", "shim", "--out", "r")
    none = ("env", "ANYRANK_SHIM=gpus=0")
    done = mpiexec(1, *run, ":", "-n", 1, *none, *run, cwd=tmp_path)
    assert done.returncode == 2 and not (tmp_path / "r").exists()
    assert done.stderr.count("--body shim: there is an NVIDIA driver, but it shows no GPU") == 1, done.stderr


def test_a_gpu_that_fails_is_named_and_the_run_goes_on_without_it(tmp_path):
    """The digest is that of a CPU; the second start finds the GPU that failed, and passes it over."""
    machine = {"ANYRANK_SHIM": f"gpus=2 fails=60 fault_file={tmp_path / 'fault_file'}"}
    words = ("--body", "shim", "--max-restarts", 1, "--checkpoint-every", 2, "--out", "r")
    done = run_anyrank(*WEATHER, *words, ranks=2, cwd=tmp_path, env={**os.environ, **machine})
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    events = [json.loads(line) for line in (tmp_path / "r" / "events.jsonl").open()]
    lost = (tmp_path / "fault_file").read_text()
    error = next(event for event in events if event["event"] == "failed")["error"]
    assert error.startswith(f"rank {lost} on {os.uname().nodename}: shim:{lost} (an emulated GPU 0000:0{lost}:00.0)")
    # Where a checkpoint's thread meets the failure first, the steps meet what CUDA says afterwards.
    assert ") failed: cudaError" in error and error.endswith("with: anyrank resume r")
    second = [event for event in events if event["event"] == "start"][1]
    assert [f"another GPU was taken: GPU {lost} cannot be used (" in warning for warning in second["warnings"]] == [
        True
    ]
    assert any(event["event"] == "resumed" for event in events)
    final = json.loads(done.stdout.splitlines()[-1])
    assert 3 * (2 * 22 * 42 + 20 * 40) * 8 <= final["memory"]["device"] < 2e5
    state = on_this_device(program := Weather(rows=40, columns=40))
    while state.step < 30:
        program.step(state)
        state.step += 1
    assert final["digests"] == {name: f"{value:016x}" for name, value in state.digests().items()}


def test_what_ends_a_rank_whose_gpu_fails(monkeypatch, tmp_path, bodies):
    bodies.prefer("shim")
    told = gpu_failure(World(), fake.OutOfMemoryError("Out of memory allocating 8 bytes\nand more"), tmp_path)
    assert told.status == 1 and "failed: Out of memory allocating 8 bytes; others may use the card. " in str(told)
    assert "Use more GPUs or fewer cells, or --body cython. Continue" in str(told) and "and more" not in str(told)
    told = gpu_failure(World(), fake.OutOfMemoryError(), None)
    assert "failed: OutOfMemoryError; others" in str(told) and "resume" not in str(told), "there is no folder yet"
    assert gpu_failure(World(), MemoryError("the host's"), tmp_path) is None


def test_results_move_limbs_and_no_fields_from_the_card(bodies, monkeypatch):
    monkeypatch.setenv("ANYRANK_SHIM", "")
    bodies.prefer("shim")
    program = Weather(rows=100, columns=100)
    state = on_this_device(program)
    before = fake.copied["out"]
    assert np.isfinite(program.result(state)["mean_pressure"])
    assert fake.copied["out"] - before < 10_000 < state.p.local.nbytes
