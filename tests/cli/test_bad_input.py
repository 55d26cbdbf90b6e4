"""Bad input: name, value, rule and fix, once for any number of ranks, status 2, before any work."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import h5py
import pytest
from ranks import anyrank_command, mpiexec, run_anyrank, start_process

from anyrank.storage.seal import seal

CRASH = Path(__file__).parents[1] / "runtime" / "crash.py"
WEATHER = ("run", "weather", "--no-picture")

BAD = {
    "unknown program": (("run", "wether"), "'wether' is not a program", "Did you mean weather?"),
    "unknown parameter": ((*WEATHER, "--rwos", 3), "--rwos", "--rows"),
    "unknown body": ((*WEATHER, "--body", "fortran"), "--body 'fortran' must be one of auto"),
    "out of range": (
        (*WEATHER, "--rows", 0),
        "weather: --rows 0 must be at least 1",
        "Use --rows 1 or more.",
    ),
    "wrong type": ((*WEATHER, "--rows", "many"), "--rows many must be a whole number"),
    "not a choice": ((*WEATHER, "--initial", "x"), "--initial x must be one of benchmark, shear"),
    "unknown option of a run": ((*WEATHER, "--checkpoint-evry", 3), "--checkpoint-evry"),
    "bad interval": ((*WEATHER, "--checkpoint-every", "often"), "--checkpoint-every 'often' must be steps"),
    "bad split": ((*WEATHER, "--split", "diagonal"), "--split 'diagonal' must be one of"),
    "negative stop": ((*WEATHER, "--stop-at", -1), "--stop-at -1 must be at least 0"),
    "bad hang timeout": ((*WEATHER, "--hang-timeout", "soon"), "--hang-timeout 'soon' is not a duration"),
    "unknown verb": (("runn",), "runn"),
    "zero ranks": ((*WEATHER, "-n", 0), "-n 0 must be at least 1"),
    "ranks of no number": ((*WEATHER, "-n", "two"), "two"),
    "no parameter file": ((*WEATHER, "--parameters", "none.toml"), "--parameters 'none.toml' cannot be read"),
    "no run to resume": (("resume", "nowhere"), "nowhere holds no run"),
}


#: One case for each place in which ranks find an error: verb, program, click, Options, parameters, a file.
ON_RANKS = ("unknown verb", "unknown program", "unknown parameter", "out of range", "bad split", "no parameter file")


@pytest.mark.parametrize(("case", "ranks"), [*((case, None) for case in BAD), *((case, 2) for case in ON_RANKS)])
def test_bad_input_is_refused_once_with_status_2(tmp_path, case, ranks, refused):
    arguments, *expected = BAD[case]
    done = mpiexec(ranks, *anyrank_command(*arguments), cwd=tmp_path) if ranks else refused(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    for text in expected:
        assert done.stderr.count(text) == 1, done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.iterdir())


def test_resume_log_that_cannot_be_opened_is_refused_once(tmp_path):
    out = tmp_path / "run"
    assert run_anyrank("run", CRASH, "--how", "no", "--stop-at", 3, "--out", out, ranks=2).returncode == 75
    (out / "log" / "rank-0001.log").unlink()
    (out / "log" / "rank-0001.log").mkdir()
    events = (out / "events.jsonl").read_text()
    done = run_anyrank("resume", out, "--check", ranks=2)
    assert done.returncode == 2 and done.stderr.count("cannot be written (Is a directory)") == 1
    assert "Traceback" not in done.stderr and (out / "events.jsonl").read_text() == events


def test_run_rank_that_fails_at_import_ends_the_others(tmp_path):
    (tmp_path / "sometimes.py").write_text("import os\nprint(1 / int(os.environ['PMI_RANK']))\n" + CRASH.read_text())
    run = anyrank_command("run", tmp_path / "sometimes.py", "--out", tmp_path / "run")
    done = mpiexec(3, *run)
    assert done.returncode == 2 and done.stderr.count("ZeroDivisionError") == 1 and not (tmp_path / "run").exists()
    well, ill = (anyrank_command("run", "pi", "--points", points, "--out", tmp_path / "run") for points in (10, 0))
    done = mpiexec(1, *well, ":", "-n", 1, *ill)
    assert done.returncode == 2 and done.stderr.count("--points 0 must be at least 1") == 1


DOMAINS = [
    (("--rows", 2), 3, "at most 2 ranks"),
    (("--rows", 2, "--columns", 2, "--split", "3x1"), 3, "at most"),
    (("--split", "2x3"), 2, "whose product is 2"),
]


@pytest.mark.parametrize(("arguments", "ranks", "expected"), DOMAINS)
def test_run_domain_too_small_is_refused_once(tmp_path, arguments, ranks, expected):
    rows = arguments if "--split" in arguments else (*arguments, "--split", "rows")
    done = run_anyrank(*WEATHER, *rows, "--out", tmp_path / "run", ranks=ranks)
    assert done.returncode == 2 and done.stderr.count(expected) == 1, done.stderr
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory):
    out = tmp_path_factory.mktemp("once") / "run"
    assert run_anyrank("run", CRASH, "--how", "no", "--steps", 5, "--out", out).returncode == 0
    return out


@pytest.fixture
def finished_run(finished_once, tmp_path):
    """The folder of a finished run of 5 steps, for tests that damage it."""
    return Path(shutil.copytree(finished_once, tmp_path / "run"))


def test_run_folder_of_another_run_is_refused_and_kept(finished_run):
    out = finished_run
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    other_parameter = run_anyrank("run", CRASH, "--how", "no", "--steps", 6, "--out", out, ranks=2)
    other_program = run_anyrank("run", "pi", "--points", 10, "--out", out, ranks=2)
    assert other_parameter.returncode == other_program.returncode == 2
    assert other_parameter.stderr.count("holds a run with steps = 5, not 6") == 1
    assert other_program.stderr.count("holds a run of 'crash', not of 'pi'") == 1
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_run_folder_of_other_files_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.tex").write_text("all I have")
    done = run_anyrank("run", "pi", "--points", 10, "--out", tmp_path, ranks=2)
    assert done.returncode == 2 and done.stderr.count("holds thesis.tex and no run") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


UNWRITABLE = [
    ("file/run", "--out file/run cannot be written (Not a directory)", None),
    ("/proc/anyrank", "--out /proc/anyrank cannot be written", 2),
    ("file", "is a file, not a folder", None),
    ("file", "is a file, not a folder", 2),
]


@pytest.mark.parametrize(("out", "expected", "ranks"), UNWRITABLE)
def test_run_folder_that_cannot_be_written_is_refused(tmp_path, out, expected, ranks):
    (tmp_path / "file").write_text("")
    done = run_anyrank("run", "pi", "--points", 10, "--out", out, cwd=tmp_path, ranks=ranks)
    assert done.returncode == 2 and done.stderr.count(expected) == 1, done.stderr


def test_run_folder_in_use_by_a_live_run_is_refused(tmp_path):
    out = tmp_path / "run"
    program = ("run", CRASH, "--how", "no", "--pause", 0.05, "--steps", 10_000, "--out", out)
    with start_process(*anyrank_command(*program, "--checkpoint-every", 2, ranks=2)) as process:
        while not list(out.glob("checkpoints/step-*.h5")):
            assert process.poll() is None
            time.sleep(0.01)
        for second in (program, ("resume", out)):
            done = run_anyrank(*second, ranks=2)
            assert done.returncode == 2 and done.stderr.count("is in use by a live run (process ") == 1


def edit_checkpoint(out, name, value):
    """Change an attribute and seal the file again, so that only the attribute is wrong."""
    for path in (out / "checkpoints").glob("*.h5"):
        text, _, end = path.read_bytes().rpartition(b" anyrank-seal ")
        length = int(end.split()[0])
        extents = json.loads(text[-length:])
        path.write_bytes(text[:-length])
        with h5py.File(path, "r+") as file:
            file.attrs[name] = value
        seal(path, extents)


CHECKPOINTS = [
    ("program", "weather", "weather"),
    ("parameters", json.dumps({"steps": 9}), "which was written with"),
    ("format_version", 99, "newer"),
]


@pytest.mark.parametrize(("name", "value", "expected"), CHECKPOINTS)
def test_resume_checkpoint_of_another_run_is_refused(finished_run, name, value, expected):
    out = finished_run
    (out / "summary.json").unlink()
    edit_checkpoint(out, name, value)
    done = run_anyrank("resume", out, ranks=2)
    assert done.returncode == 2 and expected in done.stderr and done.stderr.count("anyrank: ") == 1, done.stderr
    assert list((out / "checkpoints").glob("step-*.h5"))


def test_run_ranks_that_differ_from_the_launchers_are_refused(tmp_path):
    done = mpiexec(2, *anyrank_command("run", "pi", "--points", 10, "-n", 3, "--out", tmp_path / "run"))
    assert done.returncode == 2 and done.stderr.count("-n 3 but the launcher started 2 ranks") == 1


def test_run_under_the_launcher_of_another_mpi_is_refused_once(tmp_path):
    """Two processes with the variables of another MPI's launcher: each sees a world of one rank."""
    command = anyrank_command("run", "pi", "--points", "10", "--out", str(tmp_path / "run"))
    words = []
    for rank in range(2):
        environment = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": str(rank)}
        import os

        clean = {key: value for key, value in os.environ.items() if not key.startswith(("PMI", "HYD"))}
        done = subprocess.run(
            command, env={**clean, **environment}, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 2
        words.append(done.stderr)
    assert "the launcher started 2 tasks but this MPI sees a world of 1" in words[0]
    assert words[1:] == [""] and not (tmp_path / "run").exists()


def test_run_program_with_an_import_error_shows_one_traceback(tmp_path):
    file = tmp_path / "bad.py"
    file.write_text("import nowhere_to_be_found\n")
    done = mpiexec(3, *anyrank_command("run", file))
    assert done.returncode == 2 and done.stderr.count("No module named 'nowhere_to_be_found'") == 1


def test_resume_malformed_run_toml_is_refused(finished_run):
    (finished_run / "run.toml").write_text("program = ")
    done = run_anyrank("resume", finished_run)
    assert done.returncode == 2 and "run.toml cannot be read" in done.stderr
