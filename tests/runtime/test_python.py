"""Runs from Python: `run(program)` gives the same as the command line."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from ranks import mpiexec, run_anyrank

from anyrank import Program, State
from anyrank.errors import UsageError
from anyrank.kernel import BODIES
from anyrank.runtime.python import Run, run, source_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "heat.py"


@pytest.fixture
def heat(monkeypatch):
    """The class of examples/heat.py."""
    result = importlib.util.spec_from_file_location("heat_example", EXAMPLE)
    module = importlib.util.module_from_spec(result)
    monkeypatch.setitem(sys.modules, "heat_example", module)
    result.loader.exec_module(module)
    return module.Heat


def test_run_from_python_equals_the_command_line(heat, tmp_path):
    mine = run(heat(n=24, steps=9), out=tmp_path / "here")
    assert run_anyrank("run", EXAMPLE, "--n", 24, "--steps", 9, "--out", tmp_path / "there").returncode == 0
    theirs = Run(tmp_path / "there")
    assert mine.finished and mine.digest == theirs.digest and mine.result == theirs.result
    assert [*mine.fields] == ["T"] and len(mine.fields) == 1
    assert mine.fields["T"].tobytes() == theirs.fields["T"].tobytes()
    assert (mine.fields["T"].shape, mine.fields["T"].dtype) == ((24, 24), np.float64)
    with pytest.raises(KeyError, match=r"'p' is not a field of .*its fields are"):
        mine.fields["p"]


def test_run_on_more_ranks_has_the_same_digest(heat, tmp_path):
    mine = run(heat(n=24, steps=9), ranks=2, out=tmp_path / "two", checkpoint_every=4)
    assert mine.summary["ranks"] == 2 and mine.digest == run(heat(n=24, steps=9), out=tmp_path / "one").digest


def test_run_stopped_continues_at_its_step(heat, tmp_path):
    stopped = run(heat(n=24, steps=9), out=tmp_path / "run", stop_at=4)
    assert not stopped.finished and stopped.result == {} and stopped.summary["steps"] == 4
    assert "stopped at step 4" in repr(stopped)
    last = run(heat(n=24, steps=9), out=tmp_path / "run")
    assert last.finished and last.summary["resumed_from"] == 4
    assert last.digest == run(heat(n=24, steps=9), out=tmp_path / "through").digest
    before = last.summary
    assert run(heat(n=24, steps=9), out=tmp_path / "run").summary == before, "a finished run is read"


def test_run_restores_signal_handlers_and_bodies(heat, tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    run(heat(n=24, steps=2), out=tmp_path / "run", body="reference", hang_timeout="5s")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert BODIES.order(host=True)[0] == "cython"


def test_run_in_a_thread_works_without_signals(heat, tmp_path):
    result = []
    thread = threading.Thread(target=lambda: result.append(run(heat(n=24, steps=2), out=tmp_path / "run")))
    thread.start()
    thread.join()
    assert result[0].finished


def test_run_with_an_unknown_option_is_refused(heat, tmp_path):
    with pytest.raises(UsageError, match=r"halo_step .*Did you mean halo_steps"):
        run(heat(), out=tmp_path / "run", halo_step=2)
    with pytest.raises(UsageError, match="--keep 0 must be at least 1"):
        run(heat(), out=tmp_path / "run", keep=0)
    with pytest.raises(UsageError, match="-n 0 must be at least 1"):
        run(heat(), out=tmp_path / "run", ranks=0)
    with pytest.raises(UsageError, match="holds no run that has ended"):
        Run(tmp_path / "run")


def test_run_raises_the_error_of_the_program(heat, tmp_path):
    class Broken(heat):
        def step(self, state):
            raise ZeroDivisionError("as asked")

    with pytest.raises(ZeroDivisionError, match="as asked"):
        run(Broken(n=24, steps=2), out=tmp_path / "run")


def test_run_of_a_class_without_a_file_needs_one_rank(tmp_path):
    code = f"""if True:
        from anyrank import Program
        from anyrank.errors import UsageError
        from anyrank import run
        class Here(Program):
            steps = 3
            def declare(self, state): state.field("x", (4,))
            def step(self, state): state.x[...] = state.x.local + 1
        assert run(Here(), out={str(tmp_path / "one")!r}).fields["x"].tolist() == [3.0] * 4
        try:
            run(Here(), ranks=2, out={str(tmp_path / "two")!r})
        except UsageError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert "ranks=2: Here must be in a Python file that other ranks can import" in done.stdout


def test_run_by_all_ranks_of_a_script_is_collective(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(EXAMPLE.parent)!r})\nfrom heat import Heat\n"
        "from anyrank import run\nfound = run(Heat(n=24, steps=9), out=sys.argv[1])\n"
        "sys.stdout.write(f\"{found.summary['ranks']} {found.digest}\\n\")\n"
    )
    done = mpiexec(2, sys.executable, script, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    lines = {*done.stdout.split("\n")} - {""}
    assert len(lines) == 1 and lines.pop().startswith("2 ")


UNDER_MPIEXEC = f"""
import json, os, sys
sys.path.insert(0, {str(EXAMPLE.parent)!r})
from heat import Heat
from mpi4py import MPI
import anyrank
from anyrank.runtime import python

rank = MPI.COMM_WORLD.rank
if rank:  # what rank 0 has written, this one may not see yet
    python.Run.__init__ = None
try:
    found = anyrank.run(Heat(n=24, steps=9), out=sys.argv[1], **json.loads(sys.argv[2])[rank])
    line = f"{{found.summary['ranks']}} {{found.finished}} {{found.fields['T'].shape}}"
except anyrank.UsageError as error:
    line = str(error)
os.write(1, f"{{line}}\\n".encode())  # whole, while the other rank writes
"""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([{}, {}], "2 True (24, 24)"),
        ([{"ranks": 2}, {"ranks": 2}], "2 True (24, 24)"),
        ([{"ranks": 3}, {"ranks": 3}], "ranks=3 but mpiexec has started 2 ranks. Omit ranks."),
        ([{"ranks": 2}, {"ranks": 1}], "ranks=1 but mpiexec has started 2 ranks. Omit ranks."),
        ([{"keep": 0}, {}], "--keep 0 must be at least 1"),
    ],
)
def test_run_under_mpiexec_behaves_alike_on_all_ranks(tmp_path, options, expected):
    """Also if only one rank gives invalid options."""
    script = tmp_path / "script.py"
    script.write_text(UNDER_MPIEXEC)
    done = mpiexec(2, sys.executable, script, tmp_path / "run", json.dumps(options))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and all(line.startswith(expected) for line in lines), done.stdout


def test_source_of_a_program_is_that_of_the_command_line(heat):
    from anyrank.runtime.programs import load

    assert source_of(load("weather")) == "weather"
    assert source_of(heat) == f"{EXAMPLE.resolve()}:Heat"


class Returning(Program):
    """Returns the value that the test sets."""

    steps = 1
    found: object = None

    def declare(self, state: State) -> None:
        state.scalar("n", 0)

    def step(self, state: State) -> None:
        state.n += 1

    def result(self, state: State) -> object:
        return self.found


@pytest.mark.parametrize(
    ("found", "written"),
    [
        (None, {}),
        ([1, 2.5], {"result": [1, 2.5]}),
        (np.float64(0.5), {"result": 0.5}),
        ({3: np.arange(2)}, {"3": [0, 1]}),
    ],
)
def test_result_of_any_type_is_written(found, written, tmp_path, monkeypatch):
    monkeypatch.setattr(Returning, "found", found)
    assert run(Returning(), out=tmp_path / "run").result == written


def test_run_under_mpiexec_failure_on_one_rank_ends_all(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"""
import anyrank
class Fails(anyrank.Program):
    steps: int = anyrank.param(5, "time steps")
    def declare(self, state):
        state.field("x", (8,), halo=1)
    def step(self, state):
        if state.step == 2 and state.world.rank == 1:
            raise ValueError("only rank 1")
        state.x.exchange()
anyrank.run(Fails(), out={str(tmp_path / "run")!r})
""")
    done = mpiexec(2, sys.executable, script, timeout=60)
    assert done.returncode != 0 and "ValueError: only rank 1" in done.stderr


def test_run_under_mpiexec_check_failing_on_one_rank_ends_all(tmp_path):
    (tmp_path / "checks.py").write_text("""
from mpi4py import MPI
import anyrank
class Checks(anyrank.Program):
    def check(self):
        if MPI.COMM_WORLD.rank == 1:
            raise ValueError("only rank 1")
    def declare(self, state):
        state.scalar("n", 0)
""")
    script = f"import anyrank\nanyrank.run({str(tmp_path / 'checks.py')!r}, out={str(tmp_path / 'run')!r})\n"
    done = mpiexec(2, sys.executable, "-c", script, timeout=60)
    assert done.returncode != 0 and "rank 1: ValueError: only rank 1" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("callbacks", [None, 5, [5], [Returning]])
def test_run_with_bad_callbacks_is_refused(callbacks, tmp_path, monkeypatch):
    monkeypatch.setattr(Returning, "callbacks", lambda self: callbacks)
    with pytest.raises(UsageError, match=r"returning: callbacks\(\) returned .* must return a list"):
        run(Returning(), out=tmp_path / "run")


def test_run_with_too_many_ranks_is_refused(heat):
    with pytest.raises(UsageError, match="-n 1000000000 is more than the 65536 ranks"):
        run(heat(n=24), ranks=10**9)
