"""Weather gives NCAR's bits on any ranks, split and body, whether stopped and resumed or not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from ranks import check_collective, run_anyrank

from anyrank.kernel import BODIES
from anyrank.programs.weather import Weather
from anyrank.runtime.python import Run
from anyrank.state import State
from anyrank.world import World

ANSWERS = Path(__file__).parents[1] / "answers" / "swm-64x64"
STOPPING = Path(__file__).parents[1] / "runtime" / "stopping.py"
BENCHMARK = ("--rows", 64, "--columns", 64, "--no-picture", "--quiet", "--json")
SHA256 = {
    "p": "200ce83ca1a4e1a9bc4bbdf8618ad32fcee5d33c58397d897a309f699f715613",
    "u": "3cc48668ccd21b581db6f05320c2d544398c6fe4c87d096db710fcbce5392693",
    "v": "9febcccb0e6e616f0d48b7a148b1a8941d682c02c78f294911df7c7254eeed5c",
}


def run(*words, ranks=None, code=0, env=None) -> dict:
    done = run_anyrank(*words, ranks=ranks, timeout=240, env=env)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def fields(folder: Path) -> dict[str, np.ndarray]:
    newest = max((folder / "checkpoints").glob("step-*.h5"))
    with h5py.File(newest, "r") as file:
        return {name: file["fields"][name][...] for name in SHA256}


def check_ncar(folder: Path) -> None:
    for name, values in fields(folder).items():
        reference = np.fromfile(ANSWERS / f"{name}.bin", "<f8").reshape(65, 65)[:64, :64]
        assert np.array_equal(values.view(np.uint64), reference.view(np.uint64)), name
        assert hashlib.sha256(values.astype("<f8").tobytes()).hexdigest() == SHA256[name]


@pytest.fixture(scope="module")
def reference_40(tmp_path_factory) -> dict:
    """The reference on one rank, for the first steps of the benchmark."""
    words = ("run", "weather", *BENCHMARK, "--steps", 40, "--body", "reference")
    return run(*words, "--out", tmp_path_factory.mktemp("short") / "run")


@pytest.mark.parametrize(
    ("ranks", "split", "body"),
    [
        (1, "rows", "cython"),
        (2, "rows", "reference"),
        (2, "bricks", "shim"),
        (3, "columns", "numba"),
        (7, "rows", "cython"),
    ],
)
def test_weather_any_ranks_split_and_body_have_the_same_bits(tmp_path, reference_40, ranks, split, body):
    """After 40 steps; the next test checks all 4000 against NCAR's bits, with one body."""
    chosen = () if body == "cython" else ("--body", body)
    words = ("run", "weather", *BENCHMARK, "--steps", 40, *chosen)
    summary = run(*words, "--split", split, "--out", tmp_path / "run", ranks=ranks)
    assert summary["finished"] and (summary["ranks"], summary["bodies"]["shallow_water"]) == (ranks, body)
    assert summary["digests"] == reference_40["digests"] and summary["digests"].keys() >= SHA256.keys()


def test_ncars_bits_after_stops_on_4_and_3_ranks_and_1(tmp_path):
    """One rank gets the signal; all ranks stop at one step soon after, and continue from it."""
    out = tmp_path / "run"
    words = ("run", STOPPING, *BENCHMARK, "--steps", 4000, "--checkpoint-every", "off", "--out", out)
    first = run(*words, ranks=4, code=75, env={"ANYRANK_STOP_AT": "1234"})
    second = run("resume", out, "--quiet", "--json", ranks=3, code=75, env={"ANYRANK_STOP_AT": "2777"})
    assert 1234 <= first["steps"] <= 1236 and 2777 <= second["steps"] <= 2779
    assert (second["resumed_from"], second["stopped_by"]) == (first["steps"], "SIGTERM")
    last = run("resume", out, "--json", ranks=1)
    assert last["resumed_from"] == second["steps"] and last["steps"] == 4000
    check_ncar(out)


@pytest.mark.ranks(7)
@pytest.mark.parametrize(
    ("rows", "columns", "initial", "layouts"),
    [
        (33, 20, "benchmark", [(7, "columns"), (2, "bricks")]),
        (33, 20, "shear", [(4, "auto"), (3, "rows")]),
        (7, 129, "shear", [(3, "columns"), (2, "auto")]),
        (1, 5, "benchmark", [(4, "auto"), (2, "auto")]),
        (1, 5, "shear", [(3, "columns")]),
        (40, 3, "benchmark", [(3, "rows"), (4, "auto")]),
    ],
)
def test_weather_uneven_sizes_match_the_reference(world, rows, columns, initial, layouts):
    """The reference on one rank, and Cython's body on others."""
    program = Weather(rows=rows, columns=columns, initial=initial)
    expected = world.bcast(digests_of(program, world, 1, "rows", "reference"))
    for ranks, split in layouts:
        result = digests_of(program, world, ranks, split, "cython")
        check_collective(world, result is None or result == expected, f"{split} on {ranks} ranks")


def digests_of(program: Weather, world: World, ranks: int, split: str, body: str) -> dict[str, int] | None:
    """The digests after 60 steps on the first ranks, None on the others. Collective."""
    group = world.comm.Split(int(world.rank < ranks), world.rank)
    part = World(group)
    result = None
    if world.rank < ranks:
        BODIES.prefer(body)
        state = State(part, split)
        program.declare(state)
        program.setup(state)
        for state.step in range(60):
            program.step(state)
        result = state.digests()
        BODIES.prefer("auto")
    part.close()
    group.Free()
    return result


def test_weather_picture_is_png_and_pressure_is_conserved(tmp_path):
    out = tmp_path / "run"
    words = ("run", "weather", "--rows", 50, "--columns", 90, "--steps", 200, "--initial", "shear", "--json")
    run(*words, "--out", out, ranks=2)
    picture = (out / "weather.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000
    result = json.loads((out / "result.json").read_text())
    assert result["mean_pressure"] == pytest.approx(50_000, rel=1e-9)
    assert 10 < result["fastest_v"] < 200
    series = Run(out).series
    assert series["step"].tolist() == [*range(0, 201, 2)]
    assert series["mean_pressure"][-1] == result["mean_pressure"]
    assert series["lowest_pressure"][0] == series["highest_pressure"][0] == 50_000
    speeds = Run(out).fields["u"] ** 2 + Run(out).fields["v"] ** 2
    assert series["kinetic_energy"][-1] == pytest.approx(speeds.mean() / 2, rel=1e-12)
