"""Extended runs: more steps of a finished or stopped run give what a run of all steps gives."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from ranks import mpiexec, run_anyrank

import anyrank
from anyrank import Program, State, param
from anyrank.errors import UsageError
from anyrank.program import check_declaration
from anyrank.runtime.folder import RunFolder
from anyrank.runtime.programs import load
from anyrank.runtime.python import Run
from anyrank.storage.format import read_header

EXAMPLES = Path(__file__).parents[2] / "examples"
HEAT = EXAMPLES / "heat.py"
Heat = load(str(HEAT))


def files(folder):
    return {name: (folder / name).read_bytes() for name in ("series.csv", "series.h5", "result.json")}


@pytest.fixture(scope="module")
def through(tmp_path_factory):
    """The folder of a run of 600 steps."""
    out = tmp_path_factory.mktemp("through") / "run"
    anyrank.run(Heat(n=24, steps=600), out=out)
    return out


def check_extended(out, through, earlier=300):
    """Compare a run that was extended with one of all steps."""
    assert files(out) == files(through) and Run(out).digest == Run(through).digest
    assert Run(out).summary["parameters"] == Run(through).summary["parameters"]
    assert RunFolder(out).describe().parameters["steps"] == 600
    newest = max((out / "checkpoints").glob("*.h5"))
    assert read_header(newest).identity.parameters["steps"] == 600
    kept = [json.loads((out / f"{name}-{earlier}.json").read_text()) for name in ("summary", "result")]
    assert kept[0]["finished"] and kept[0]["steps"] == earlier and [*kept[1]] == ["mean", "hottest"]


@pytest.mark.parametrize("ranks", [1, 3])
def test_extend_finished_run_equals_the_longer_run(through, tmp_path, ranks):
    out = tmp_path / "run"
    assert run_anyrank("run", HEAT, "--n", 24, "--steps", 300, "--out", out, "--quiet", ranks=2).returncode == 0
    done = run_anyrank("resume", "--steps", 600, out, ranks=ranks)
    assert done.returncode == 0 and "resumed at step 300" in done.stderr, done.stderr
    check_extended(out, through)
    again = run_anyrank("resume", out, "--steps", 600)
    assert again.returncode == 0 and "is finished: 600 steps" in again.stdout
    assert run_anyrank("resume", out).returncode == 0


def test_extend_by_mpiexec_and_twice_equals_the_longer_run(through, tmp_path):
    out = tmp_path / "run"
    anyrank.run(Heat(n=24, steps=100), out=out)
    for steps in (300, 600):
        done = mpiexec(2, sys.executable, "-m", "anyrank", "resume", out, "--steps", steps, "--quiet")
        assert done.returncode == 0, done.stderr
    check_extended(out, through)
    assert (out / "summary-100.json").exists()


def test_extend_stopped_run_equals_the_longer_run(through, tmp_path):
    out = tmp_path / "run"
    anyrank.run(Heat(n=24, steps=300), out=out, stop_at=77)
    anyrank.run(Heat(n=24, steps=600), out=out, extend=True, stop_at=301)
    assert not Run(out).finished and Run(out).summary["steps"] == 301
    anyrank.run(Heat(n=24, steps=600), out=out)  # no parameter changes any more
    assert files(out) == files(through) and not [*out.glob("summary-*")]


def test_extend_before_the_first_new_checkpoint_is_killed(through, tmp_path):
    """The run keeps its new number of steps, and is not finished."""
    out = tmp_path / "run"
    anyrank.run(Heat(n=24, steps=300), out=out)
    done = run_anyrank("resume", out, "--steps", 600, "--chaos", "kill rank=1 step=320", "--i-mean-it", ranks=2)
    assert done.returncode == 1
    assert RunFolder(out).finished() is None and RunFolder(out).describe().parameters["steps"] == 600
    assert run_anyrank("resume", out, ranks=2).returncode == 0
    check_extended(out, through)


@pytest.mark.parametrize("ranks", [1, 2])
def test_extend_from_python_needs_to_be_said(through, tmp_path, ranks):
    out = tmp_path / "run"
    anyrank.run(Heat(n=24, steps=300), ranks=ranks, out=out, extend=True)  # there is nothing to extend yet
    if ranks == 1:
        with pytest.raises(
            UsageError, match=r"steps = 300, not 600: .*resume .*run --steps 600 \(in Python, extend=Tr"
        ):
            anyrank.run(Heat(n=24, steps=600), out=out)
    run = anyrank.run(Heat(n=24, steps=600), ranks=ranks, out=out, extend=True)
    assert run.finished and run.summary["ranks"] == ranks
    check_extended(out, through)


def test_extend_of_a_given_interval_keeps_it(tmp_path):
    out = tmp_path / "run"
    anyrank.run(Heat(n=24, steps=30), out=out, observe_every=7)
    run = anyrank.run(Heat(n=24, steps=60), out=out, extend=True)
    assert run.series["step"].tolist() == [*range(0, 60, 7), 60]


def test_extend_without_run_toml_keeps_the_results(through, tmp_path):
    out = tmp_path / "run"
    anyrank.run(Heat(n=24, steps=300), out=out)
    (out / "run.toml").unlink()
    done = run_anyrank("resume", out, "--program", HEAT, "--steps", 600)
    assert done.returncode == 0, done.stderr
    check_extended(out, through)


REFUSED = {
    "another parameter": (("--nu", "0.2"), "holds a run with nu = 0.1, not 0.2: only steps may grow at a resume. Omit"),
    "both": (("--nu", "0.2", "--steps", 600), "holds a run with nu = 0.1, not 0.2"),
    "fewer": (("--steps", 200), "holds a run with steps = 300, not 200: steps can only grow. Use 300 or more"),
    "no number": (("--steps", "many"), "--steps many must be a whole number"),
    "out of range": (("--steps", "-1"), "--steps -1 must be at least 0"),
    "unknown": (("--step", 600), "No such option '--step'"),
    "set": (("--set", "nu=0.2"), "holds a run with nu = 0.1, not 0.2"),
    "set unknown": (("--set", "mu=0.2"), "mu = '0.2' is not a parameter of heat. They are n, nu, steps."),
}


@pytest.mark.parametrize("case", REFUSED)
def test_extend_of_what_may_not_change_is_refused(tmp_path, case, in_process):
    words, message = REFUSED[case]
    out = tmp_path / "run"
    anyrank.run(Heat(n=24, steps=300), out=out)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    done = run_anyrank("resume", out, *words, ranks=2)
    assert done.returncode == 2 and done.stderr.count(message) == 1 and "Traceback" not in done.stderr, done.stderr
    names = {"run.toml", "summary.json", "result.json", "series.csv", "series.h5"}
    assert {name: (out / name).read_bytes() for name in names} == {name: before[name] for name in names}


@pytest.mark.parametrize("ranks", [1, 2])
def test_extend_by_run_is_refused_with_the_command(tmp_path, ranks):
    out = tmp_path / "run"
    anyrank.run(Heat(n=24, steps=300), out=out)
    done = run_anyrank("run", HEAT, "--n", 24, "--steps", 600, "--out", out, ranks=ranks)
    assert done.returncode == 2 and done.stderr.count(f"Extend it with: anyrank resume {out} --steps 600 ") == 1


def test_extend_help_of_resume_shows_the_parameters(tmp_path, in_process):
    anyrank.run(Heat(n=24, steps=3), out=tmp_path / "run")
    text = in_process("resume", tmp_path / "run", "--help").stdout
    assert "--steps INTEGER" in text and "--program TEXT" in text and "--stop-at" in text
    assert "--steps INTEGER" not in in_process("resume", "--help").stdout


class Growing(Program):
    """A run that grows by its cost, not by its steps."""

    steps: int = param(3, "steps", ge=0, extendable=False)
    limit: float = param(3.0, "the end", extendable=True)
    program: int = param(1, "a name that resume has an option for")

    def declare(self, state: State) -> None:
        state.scalar("n", 0)

    def step(self, state: State) -> None:
        state.n += 1

    def done(self, state: State) -> bool:
        return state.n >= self.limit


class Shorter(Growing):
    """Inherits what is extendable."""

    limit = 2.0


def test_extend_parameters_are_those_that_say_so(tmp_path):
    assert Growing.extendable_parameters() == Shorter.extendable_parameters() == ("limit",)
    assert Heat.extendable_parameters() == ("steps",)
    assert load(str(EXAMPLES / "heat3d.py")).extendable_parameters() == ()
    assert load("pi").extendable_parameters() == ()
    run = anyrank.run(Growing(), out=tmp_path / "run")
    assert run.summary["steps"] == 3
    run = anyrank.run(Growing(limit=5.5), out=tmp_path / "run", extend=True)
    assert run.summary["steps"] == 6 and (tmp_path / "run/summary-3.json").exists()
    with pytest.raises(UsageError, match="steps = 3, not 4: only limit may grow at a resume"):
        anyrank.run(Growing(limit=5.5, steps=4), out=tmp_path / "run", extend=True)


def test_extend_with_a_parameter_named_as_an_option(tmp_path, in_process):
    source = Path(__file__)
    anyrank.run(Growing(), out=tmp_path / "run")
    text = in_process("resume", tmp_path / "run", "--program", f"{source}:Growing", "--help").stdout
    assert "--set program=INTEGER" in text and "--limit NUMBER" in text


@pytest.mark.parametrize("kind", [str, bool, list[int], int | None])
def test_extend_of_no_number_is_a_wrong_declaration(kind):
    namespace = {"__annotations__": {"x": kind}, "x": param(..., extendable=True)}
    wrong = type("Wrong", (Program,), namespace)
    with pytest.raises(UsageError, match="parameter x: extendable=True is for a number, int or float"):
        check_declaration(wrong)


def test_extend_of_changed_inputs_of_a_finished_run_is_refused(tmp_path):
    source, data = tmp_path / "reading.py", tmp_path / "data"
    source.write_text(
        "from pathlib import Path\nfrom anyrank import Program, State, param\nclass Reading(Program):\n"
        "    file: Path = param(..., 'input')\n    steps: int = param(3, 'steps')\n"
        "    def declare(self, state):\n        state.scalar('n', 0)\n"
        "    def step(self, state):\n        state.n += len(self.file.read_text())\n"
    )
    data.write_text("12")
    assert run_anyrank("run", source, "--file", data, "--out", tmp_path / "run").returncode == 0
    data.write_text("123")
    done = run_anyrank("resume", tmp_path / "run", "--steps", 5)
    assert done.returncode == 2 and "has changed since the run began" in done.stderr
    assert RunFolder(tmp_path / "run").finished() is not None
