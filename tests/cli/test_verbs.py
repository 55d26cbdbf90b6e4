"""The verbs, as a new user calls them."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from ranks import anyrank_command, mpiexec, run_anyrank

from anyrank.cli import doctor
from anyrank.kernel import installed_kernels

ROOT = Path(__file__).parents[2]
HEAT = ROOT / "examples" / "heat.py"


def last_json(done) -> dict:
    return json.loads(done.stdout.splitlines()[-1])


def test_list_names_every_program(in_process):
    done = in_process("list")
    assert done.returncode == 0
    assert re.search(r"^pi +π from", done.stdout, re.M) and re.search(r"^weather +Shallow-water", done.stdout, re.M)


@pytest.mark.parametrize("words", [("--help",), ("run", "--help"), ("run", "weather", "--help"), ("resume", "--help")])
def test_help_shows_usage_and_parameters(words, in_process):
    done = (run_anyrank if len(words) == 1 else in_process)(*words)
    text = " ".join(done.stdout.split())
    assert done.returncode == 0 and "Usage: anyrank" in text
    if "weather" in words:
        assert "--rows INTEGER cells along i; at least 1 [default: 64]" in text
        assert "one of benchmark, shear [default: benchmark]" in text


def test_new_writes_a_program_that_runs(tmp_path, in_process):
    done = run_anyrank("new", "my_heat.py", cwd=tmp_path)
    assert done.returncode == 0 and "anyrank run ./my_heat.py" in done.stdout
    ran = run_anyrank("run", "./my_heat.py", "--steps", 5, "--out", "r", "--json", cwd=tmp_path, ranks=2)
    assert ran.returncode == 0 and last_json(ran)["program"] == "myheat"
    again = in_process("new", "my_heat.py", cwd=tmp_path)
    assert again.returncode == 2 and "exists and is not overwritten" in again.stderr


@pytest.mark.parametrize("like", ["staggered", "lattice"])
def test_new_like_writes_a_program_with_one_digest(tmp_path, like):
    assert run_anyrank("new", "mine.py", "--like", like, cwd=tmp_path).returncode == 0
    words = ("run", "./mine.py", "--n", 12, "--steps", 5, "--json", "--out")
    digests = {last_json(run_anyrank(*words, f"r{n}", cwd=tmp_path, ranks=n))["digest"] for n in (1, 3)}
    assert len(digests) == 1


def test_new_like_unknown_is_refused(tmp_path, refused):
    done = refused("new", "mine.py", "--like", "ocean", cwd=tmp_path)
    assert done.returncode == 2 and "--like 'ocean' must be one of heat, lattice, staggered" in done.stderr


@pytest.mark.parametrize(("name", "message"), [("heat.txt", "ending in .py"), ("no/x.py", "Make it first")])
def test_new_bad_name_is_refused(tmp_path, name, message, refused):
    done = refused("new", name, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and not list(tmp_path.iterdir())


def test_doctor_times_every_body_of_every_kernel(monkeypatch):
    monkeypatch.setattr(doctor, "TIMING_SECONDS", 0.01)
    done = CliRunner().invoke(doctor.command, ["--size", "500", "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    timed = {(row["kernel"], row["body"]) for row in facts["kernels"] if row["rate"] > 0}
    kernels = {kernel.name for kernel in installed_kernels()}
    assert {"shallow_water", "quarter_circle", "group.limbs"} <= kernels
    assert {(kernel, body) for kernel in kernels for body in ("reference", "cython")} <= timed
    assert ("shallow_water", "numba") in timed
    assert facts["mpi"] and facts["mpiexec"].endswith("mpiexec")


def test_readme_program_equals_the_example():
    text = (ROOT / "README.md").read_text()
    shown = re.search(r"```python\n(from anyrank import.*?)```", text, re.S)[1]
    squeeze = re.compile(r"\s+|#[^\n]*|,(?=\s*\))")
    assert squeeze.sub("", HEAT.read_text()).endswith(squeeze.sub("", shown))
    assert len(HEAT.read_text().splitlines()) < 50


def test_readme_program_has_the_same_bits_on_any_ranks(tmp_path):
    digests = {}
    for ranks, split in [(1, "rows"), (2, "columns"), (3, "rows"), (4, "bricks")]:
        words = ("run", HEAT, "--n", 65, "--steps", 50, "--split", split, "--out", tmp_path / f"{ranks}", "--json")
        done = run_anyrank(*words, ranks=ranks)
        assert done.returncode == 0, done.stderr
        digests[ranks] = last_json(done)["digests"]
    assert digests[1] == digests[2] == digests[3] == digests[4]


def test_run_parameters_from_a_file_are_overridden_by_flags(tmp_path):
    (tmp_path / "p.toml").write_text("points = 1000\nseed = 5\n")
    words = ("run", "pi", "--parameters", "p.toml", "--points", "2e3", "--out", "r", "--json")
    summary = last_json(run_anyrank(*words, cwd=tmp_path))
    assert summary["parameters"]["points"] == 2000 and summary["parameters"]["seed"] == 5
    again = run_anyrank("run", "pi", "--parameters", "r/run.toml", "--out", "s", "--json", cwd=tmp_path)
    assert last_json(again)["digest"] == summary["digest"], "a run's own description is a parameter file"


def test_run_under_mpiexec_has_the_same_digest_as_with_n(tmp_path):
    words = ("run", "pi", "--points", 10_000, "--json", "--out")
    ours = run_anyrank(*words, tmp_path / "a", ranks=3)
    theirs = mpiexec(3, *anyrank_command(*words, tmp_path / "b"))
    assert last_json(ours)["digest"] == last_json(theirs)["digest"]
    assert last_json(theirs)["ranks"] == 3 and theirs.stdout.count("pi: pi =") == 1


def test_run_json_is_the_summary(tmp_path):
    done = run_anyrank("run", "pi", "--points", 1000, "--json", "--out", tmp_path / "r", ranks=2)
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert last_json(done) == summary
    expected = {"program", "parameters", "ranks", "bodies", "steps", "digest", "digests", "seconds", "rate"}
    assert expected | {"resumed_from", "finished"} <= set(summary)
    assert set(summary["rate"]) == {"value", "unit"} and re.fullmatch("[0-9a-f]{16}", summary["digest"])


@pytest.mark.parametrize("ranks", [None, 2])
def test_run_progress_bar_is_shown_on_a_terminal_only(tmp_path, ranks):
    words = ("run", ROOT / "tests" / "runtime" / "crash.py", "--how", "no", "--pause", 0.02, "--steps", 40, "--out")
    parent, child = pty.openpty()
    command = anyrank_command(*words, tmp_path / "tty", ranks=ranks)
    environment = {**os.environ, "COLUMNS": "80", "LINES": "24"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=child, env=environment) as process:
        os.close(child)
        shown = b""
        while True:
            try:
                part = os.read(parent, 4096)
            except OSError:
                break
            shown += part
            if not part:
                break
    os.close(parent)
    assert process.returncode == 0 and b"crash" in shown and b"40/40" in shown
    piped = run_anyrank(*words, tmp_path / "pipe", ranks=ranks)
    assert "40/40" not in piped.stderr and "\r" not in piped.stderr
