"""The programs of examples/ give the numbers that others published, and one digest on any ranks, split and body."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI
from ranks import check_collective

import anyrank
from anyrank import State
from anyrank.kernel import BODIES
from anyrank.runtime.programs import load
from anyrank.world import World

EXAMPLES = Path(__file__).parents[2] / "examples"
ANSWERS = json.loads((Path(__file__).parents[1] / "answers" / "examples" / "numbers.json").read_text())
#: Programs with few cells and six steps.
SMALL = {
    "acoustic": {"nx": 14, "ny": 13, "steps": 6},
    "acoustic-layer": {"nx": 16, "ny": 12, "layer": 5, "steps": 6},
    "maxwell": {"cells": [9, 8, 8], "steps": 6},
    "cavity": {"n": 12, "steps": 6},
    "cylinder": {"diameter": 3, "length": 5.0, "time": 0.1},
    "heat3d": {"n": 9, "time": 0.002},
}


def program_of(name, **parameters):
    return load(str(EXAMPLES / f"{name.partition('-')[0]}.py"))(**parameters)


def digest_of(world, program, *, body="auto", **options):
    """The digest after all steps of a program, without a run folder."""
    BODIES.prefer(body)
    try:
        state = State(world, **options)
        program.declare(state)
        program.constants(state)
        state.finish_constants()
        program.setup(state)
        for _step in range(program.steps):
            program.step(state)
            state.step += 1
        return state.digest()
    finally:
        BODIES.prefer("auto")


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("name", SMALL)
def test_example_on_any_ranks_split_and_body_has_one_digest(world, name, monkeypatch):
    program = program_of(name, **SMALL[name])
    expected = digest_of(World(MPI.COMM_SELF), program)
    found = {split: digest_of(world, program, split=split) for split in ("rows", "columns", "bricks")}
    found["weights"] = digest_of(world, program, weights=[1.0 + rank / 4 for rank in range(world.size)])
    for body in ("reference", "shim"):
        found[body] = digest_of(world, program, body=body)
    monkeypatch.setattr("anyrank.exchange.advance.OVERLAP_POINTS", 1)
    found["overlap"] = digest_of(world, program)
    found["halo steps"] = digest_of(world, program, halo_steps=2)
    wrong = [case for case, digest in found.items() if digest != expected]
    check_collective(world, not wrong, f"{name}: other bits with {wrong}")


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("name", SMALL)
def test_example_stopped_and_resumed_has_the_same_digest(name, tmp_path):
    program = program_of(name, **SMALL[name])
    assert program.steps == 6
    stopped = anyrank.run(program, out=tmp_path / "run", stop_at=3)
    resumed = anyrank.run(program, out=tmp_path / "run", halo_steps=2)
    assert not stopped.finished and resumed.summary["resumed_from"] == 3
    assert int(resumed.digest, 16) == digest_of(World(MPI.COMM_SELF), program)


def test_acoustic_has_the_frequency_of_the_room(tmp_path):
    run = anyrank.run(program_of("acoustic"), out=tmp_path)
    assert run.result["frequency"] == pytest.approx(ANSWERS["acoustic"]["frequency"], rel=5e-4)


def test_acoustic_layer_reflects_what_berenger_says(tmp_path):
    reflection = ANSWERS["acoustic"]["reflection"]
    program = program_of("acoustic", nx=240, ny=4, layer=40, steps=560, reflection=reflection)
    run = anyrank.run(program, out=tmp_path)
    assert run.result["largest_pressure"] == pytest.approx(reflection, rel=0.02)


def test_maxwell_box_resonates_as_published(tmp_path):
    run = anyrank.run(program_of("maxwell"), out=tmp_path)
    assert run.result["frequency"] == pytest.approx(ANSWERS["maxwell"]["published"], rel=0.01)
    assert run.result["frequency"] == pytest.approx(ANSWERS["maxwell"]["on_the_grid"], rel=1e-12)
    # After the first step, in which H starts at rest, the amplitude is A cos(ωt + φ).
    step, amplitude = run.series["step"], run.series["amplitude"]
    omega = 2 * np.pi * run.result["frequency"] * program_of("maxwell").dt
    second_difference = amplitude[2:] - 2 * np.cos(omega) * amplitude[1:-1] + amplitude[:-2]
    assert step.tolist() == [*range(101)] and np.abs(second_difference[1:]).max() < 1e-9 * amplitude[0]


def test_cavity_has_the_velocities_of_ghia(tmp_path):
    n, error, ghia = 20, 0.012, ANSWERS["cavity"]
    run = anyrank.run(program_of("cavity", n=n, tolerance=1e-5), out=tmp_path)
    centres = (np.arange(n) + 0.5) / n
    u = np.interp(ghia["y"], [0, *centres, 1], [0, *run.fields["u"][:, n // 2], 1])
    v = np.interp(ghia["x"], [0, *centres, 1], [0, *run.fields["v"][n // 2], 0])
    assert np.abs(u - ghia["u"]).max() < error and np.abs(v - ghia["v"]).max() < error
    assert run.result["u"] == run.fields["u"][:, n // 2].min()
    assert run.series["residual"][-1] <= 1e-5 < run.series["residual"][-2]
    assert run.series["fastest"][-1] == run.fields["u"].max() and run.series["step"][-1] == run.result["steps"]
    assert 64 <= len(run.series["step"]) <= 130, "the number of steps is not known before"


def test_cylinder_sample_finds_the_period_and_maxima():
    """Of a force that oscillates with a period of 250 steps."""
    program = program_of("cylinder", **SMALL["cylinder"])
    state = State(World(MPI.COMM_SELF))
    program.declare(state)
    for state.step in range(0, 1000, 10):
        phase = 2 * np.pi * state.step / 250
        state.force[0], state.force[1] = 1 + 0.1 * np.cos(phase), np.sin(phase)
        program.sample(state)
    coefficient = 2 * np.prod(program.cells) / (program.speed**2 * program.diameter)
    assert program.result(state) == pytest.approx(
        {
            "strouhal": program.diameter / (program.speed * 250),
            "max_drag": 1.1 * coefficient,
            "max_lift": np.sin(0.48 * np.pi) * coefficient,
            "drag": (1 + 0.1 * np.cos(phase)) * coefficient,
            "lift": np.sin(phase) * coefficient,
        }
    )


@pytest.mark.slow
def test_cylinder_has_the_steady_drag_of_schaefer_turek(tmp_path):
    """Case 2D-1, with ten cells per diameter: 5.66 instead of 5.57 to 5.59."""
    run = anyrank.run(program_of("cylinder", re=20.0, diameter=10, time=25.0), ranks=2, out=tmp_path)
    assert run.result["drag"] == pytest.approx(np.mean(ANSWERS["cylinder"]["2D-1"]["drag"]), rel=0.02)


@pytest.mark.slow
def test_cylinder_has_the_vortex_street_of_schaefer_turek(tmp_path):
    """Case 2D-2, with twenty cells per diameter: the largest drag is 3.27, the largest lift 0.96."""
    run, published = anyrank.run(program_of("cylinder"), ranks=2, out=tmp_path), ANSWERS["cylinder"]["2D-2"]
    lowest, highest = published["strouhal"]
    assert lowest < run.result["strouhal"] < highest
    assert run.result["max_drag"] == pytest.approx(np.mean(published["drag"]), rel=0.02)
    assert run.result["max_lift"] == pytest.approx(np.mean(published["lift"]), rel=0.05)


def test_heat3d_has_the_temperatures_of_the_series(tmp_path):
    run = anyrank.run(program_of("heat3d"), out=tmp_path)
    mean, hottest = run.series["mean"], run.series["hottest"]
    assert (mean[-1], hottest[-1]) == (run.result["mean"], run.result["hottest"])
    assert mean[0] == 0 and (np.diff(mean) > 0).all() and (np.diff(hottest) > 0).all() and hottest[-1] < 100
    temperature, n = run.fields["T"], 24
    assert temperature.dtype == np.float32 and (temperature == temperature[:, :1, :1]).all()
    faces = [round(z * n) for z in ANSWERS["heat3d"]["z"]]
    found = [(temperature[face - 1, 0, 0] + temperature[face, 0, 0]) / 2 for face in faces]
    assert found == pytest.approx(ANSWERS["heat3d"]["T"], rel=2e-4)
