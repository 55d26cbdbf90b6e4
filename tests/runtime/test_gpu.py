"""Runs on GPUs that are too small, missing or broken, or that fail during the run."""

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
#: Bytes of its fields: each with a halo has a second array, whose rows are too short to start at cache lines; a
#: line of padding for the others; and the buffer of a block during initialization.
NEEDED = 3 * (2 * 42**2 * 8 + 40**2 * 8 + 64) + 40**2 * 8


@pytest.fixture
def bodies():
    yield BODIES
    BODIES.prefer("auto")


def state_on_device(program: Weather) -> State:
    state = State(World())
    program.declare(state)
    program.setup(state)
    return state


def declare_state(world, halo_steps: int) -> State:
    state = State(world, "rows", halo_steps=halo_steps)
    state.field("a", (60, 20), halo=1)
    state.field("b", (60, 20), "i4")
    return state


@pytest.mark.ranks(3)
@pytest.mark.parametrize("halo_steps", [1, 4])
def test_shortage_adds_up_the_needs_of_ranks_on_one_gpu(world, monkeypatch, bodies, halo_steps):
    margin = 2 * halo_steps
    mine = 2 * (20 + margin) * (20 + margin) * 8 + (20 + margin - 2) * (20 + margin - 2) * 4 + 20 * 20 * 8
    for gpus, sharing, which in ((1, 3, "ranks 0-2"), (2, 2, "ranks 0,2")):
        for missing in (0, 1):
            monkeypatch.setenv("ANYRANK_SHIM", f"gpus={gpus} memory={sharing * mine - missing}")
            bodies.prefer("shim", world.rank)
            error = shortage(declare_state(world, halo_steps), "plate")
            refused = missing and (gpus == 1 or world.rank != 1)
            check_collective(world, bool(error) == bool(refused), f"{gpus} {missing} {error}")
            if error:
                free = sharing * mine - 1
                assert f"plate: the fields of {which}, and their initialization, need {sharing * mine} bytes (" in str(
                    error
                ), error
                assert f"on shim:0 (an emulated GPU 0000:00:00.0) of {os.uname().nodename}, which" in str(error)
                assert f"has {free} bytes ({free / 1e9:.3g} GB) free of {free} bytes" in str(error)
    check_collective(
        world, device_of(world).endswith((", shared with rank(s) 2", ")", ", shared with rank(s) 0")[world.rank])
    )
    bodies.prefer("reference")
    assert (
        shortage(declare_state(world, 1), "plate") is None and device_of(world) == "device host (no GPU: not requested)"
    )


def test_gpu_fields_beyond_its_memory_are_refused_before_the_run(tmp_path):
    machine = {"ANYRANK_SHIM": "memory=1e5"}
    done = run_anyrank(*WEATHER, "--body", "shim", "--out", "r", cwd=tmp_path, env={**os.environ, **machine})
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert (
        f"weather: the fields of rank 0, and their initialization, need {NEEDED} bytes (0.000136 GB) on shim:0"
        in done.stderr
    )
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("missing", [0, 1])
def test_gpu_memory_short_by_one_byte_is_refused(tmp_path, missing):
    """With one byte less than setup needs the run is refused; with exactly that many bytes it finishes."""
    machine = {"ANYRANK_SHIM": f"memory={NEEDED - missing}"}
    done = run_anyrank(*WEATHER, "--body", "shim", "--out", "r", cwd=tmp_path, env={**os.environ, **machine})
    assert done.returncode == 2 * missing, done.stderr
    assert (tmp_path / "r").exists() is not bool(missing) and "OutOfMemory" not in done.stderr


def test_gpu_memory_of_padded_rows_is_predicted_to_the_byte(monkeypatch, bodies):
    """For rows that start at cache lines, the used memory of the GPU is exactly the predicted one."""
    bodies.prefer("shim")
    shape = (9, 300)
    for dtype, halo in (("f8", 1), ("f4", 2), ("i2", 0)):
        gc.collect()
        free, _ = BODIES.device.free_memory()
        state = State(World())
        field = state.field("a", shape, dtype, halo=halo)
        state.allocate()
        used = free - BODIES.device.free_memory()[0]
        assert used > field.nbytes or dtype == "i2"
        trial = State(World())
        trial.field("a", shape, dtype, halo=halo)
        needed = used * (2 if halo else 1) + field.local.nbytes
        for missing in (0, 1):
            monkeypatch.setattr(BODIES.device, "free_memory", lambda missing=missing: (needed - missing, 10**9))  # noqa: B023
            assert bool(shortage(trial, "plate")) is bool(missing), (dtype, halo)
        monkeypatch.undo()


def test_gpu_missing_on_one_rank_is_refused_once(tmp_path):
    run = anyrank_command(*WEATHER, "--body", "shim", "--out", "r")
    none = ("env", "ANYRANK_SHIM=gpus=0")
    done = mpiexec(1, *run, ":", "-n", 1, *none, *run, cwd=tmp_path)
    assert done.returncode == 2 and not (tmp_path / "r").exists()
    assert done.stderr.count("--body shim: there is an NVIDIA driver, but it shows no GPU") == 1, done.stderr


def test_gpu_that_fails_is_named_and_left_out_at_the_restart(tmp_path):
    """The digest is that of a CPU; the second start finds the failed GPU and does not use it."""
    machine = {"ANYRANK_SHIM": f"gpus=2 fails=60 fault_file={tmp_path / 'fault_file'}"}
    words = ("--body", "shim", "--max-restarts", 1, "--checkpoint-every", 2, "--out", "r")
    done = run_anyrank(*WEATHER, *words, ranks=2, cwd=tmp_path, env={**os.environ, **machine})
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    events = [json.loads(line) for line in (tmp_path / "r" / "events.jsonl").open()]
    lost = (tmp_path / "fault_file").read_text()
    error = next(event for event in events if event["event"] == "failed")["error"]
    assert error.startswith(f"rank {lost} on {os.uname().nodename}: shim:{lost} (an emulated GPU 0000:0{lost}:00.0)")
    # If a checkpoint's thread gets the error first, the steps get the errors that CUDA raises afterwards.
    assert ") failed: cudaError" in error and error.endswith("with: anyrank resume r")
    second = [event for event in events if event["event"] == "start"][1]
    assert [f"another GPU was taken: GPU {lost} cannot be used (" in warning for warning in second["warnings"]] == [
        True
    ]
    assert any(event["event"] == "resumed" for event in events)
    final = json.loads(done.stdout.splitlines()[-1])
    assert 3 * (2 * 22 * 42 + 20 * 40) * 8 <= final["memory"]["device"] < 2e5
    state = state_on_device(program := Weather(rows=40, columns=40))
    while state.step < 30:
        program.step(state)
        state.step += 1
    assert final["digests"] == {name: f"{value:016x}" for name, value in state.digests().items()}


def test_gpu_failure_gives_status_and_advice(monkeypatch, tmp_path, bodies):
    bodies.prefer("shim")
    error = gpu_failure(World(), fake.OutOfMemoryError("Out of memory allocating 8 bytes\nand more"), tmp_path)
    assert error.status == 1 and "failed: Out of memory allocating 8 bytes; others may use the card. " in str(error)
    assert "Use more GPUs or fewer cells, or --body cython. Continue" in str(error) and "and more" not in str(error)
    error = gpu_failure(World(), fake.OutOfMemoryError(), None)
    assert "failed: OutOfMemoryError; others" in str(error) and "resume" not in str(error), "there is no folder yet"
    assert gpu_failure(World(), MemoryError("the host's"), tmp_path) is None


def test_gpu_results_copy_limbs_and_no_fields(bodies, monkeypatch):
    monkeypatch.setenv("ANYRANK_SHIM", "")
    bodies.prefer("shim")
    program = Weather(rows=100, columns=100)
    state = state_on_device(program)
    before = fake.copied["out"]
    assert np.isfinite(program.result(state)["mean_pressure"])
    assert fake.copied["out"] - before < 10_000 < state.p.local.nbytes
