"""Child processes of a program: they import its file by name, are no ranks, and start no MPI."""

from __future__ import annotations

import json
import sys

import pytest
from ranks import mpiexec, run_anyrank

from anyrank.launcher import rank_command, without_launch
from anyrank.verify.case import environment

PROGRAM = """
from mpi4py import MPI  # before anyrank, which then cannot keep MPI from starting
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

from anyrank import Program, State, param
{imports}

def square(x):
    assert not MPI.Is_initialized() and not any(name.startswith("PMI_") for name in os.environ)
    return scale() * x * x


class Squares(Program):
    steps: int = param(2, "steps")
    method: str = param("spawn", "how children start")

    def declare(self, state: State) -> None:
        state.scalar("total", 0)

    def step(self, state: State) -> None:
        context = multiprocessing.get_context(self.method)
        with context.Pool(1) as pool:
            state.total += sum(pool.map(square, range(5)))
        with ProcessPoolExecutor(1, context) as pool:
            state.total += sum(pool.map(square, range(5)))
        state.total += int(subprocess.run(["echo", "1"], capture_output=True, check=True).stdout)

    def result(self, state: State) -> dict:
        return {{"total": state.total}}
"""
TOTAL = 2 * (2 * 2 * 30 + 1)


@pytest.fixture
def package(tmp_path):
    """A program file in a package, with a relative import."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "common.py").write_text("def scale():\n    return 2\n")
    (folder / "squares.py").write_text(PROGRAM.format(imports="from .common import scale"))
    return folder / "squares.py"


def single_file(folder, name):
    file = folder / name
    file.write_text(PROGRAM.format(imports="def scale():\n    return 2\n"))
    return file


def run_result(file, *words, ranks=1, cwd=None):
    """The result of a run of the program."""
    out = file.parent / "run"
    done = run_anyrank("run", file, "--out", out, "--quiet", "--hang-timeout", "40s", *words, ranks=ranks, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads((out / "result.json").read_text())["total"]


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_children_of_a_package_import_the_program(package, method, ranks):
    assert run_result(package, "--method", method, ranks=ranks) == TOTAL


@pytest.mark.parametrize("name", ["random.py", "two.dots.py", "2d-squares.py"])
def test_children_of_a_file_of_any_name_import_it(tmp_path, name):
    """One name is that of a standard module, another is no valid module name."""
    assert run_result(single_file(tmp_path, name), ranks=2) == TOTAL


def test_children_of_verify_start_no_mpi(package):
    """A rank of verify, whose main module differs from that of other ranks."""
    words = rank_command(
        ["run", str(package), "--steps", "1", "--out", str(package.parent / "run")], "anyrank.verify.rank"
    )
    done = mpiexec(2, *words, env=environment(""))
    assert done.returncode == 0, done.stderr


def test_children_of_a_script_under_mpiexec_start_no_mpi(tmp_path):
    """The script imports anyrank first; its children import the script."""
    text = PROGRAM.format(imports="def scale():\n    return 2\n").replace(
        "from mpi4py import MPI", "import anyrank.world"
    )
    text = text.replace("import anyrank.world", "import anyrank.world\nfrom mpi4py import MPI")
    script = tmp_path / "script.py"
    script.write_text(
        text + "\n\nif __name__ == '__main__':\n    from anyrank import run\n"
        f"    total = run(Squares(steps=1), out={str(tmp_path / 'run')!r}).result['total']\n"
        "    os.write(1, b'%d\\n' % total)\n"
    )
    done = mpiexec(2, sys.executable, script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(TOTAL // 2)] * 2


def test_without_launch_keeps_variables_of_jobs_and_settings():
    kept = {"PATH": "/bin", "SLURM_JOB_ID": "7", "HYDRA_IFACE": "eth0", "PMIX_MCA_gds": "hash", "OMPI_MCA_pml": "ucx"}
    removed = {
        "PMI_RANK": "0",
        "PMI_FD": "9",
        "PMIX_NAMESPACE": "a",
        "OMPI_COMM_WORLD_SIZE": "1",
        "HYDI_CONTROL_FD": "7",
    }
    assert without_launch(kept | removed) == kept
