"""verify: the planted bugs are found and named, our programs are clean; the output, and the errors."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest
import tomli_w
from ranks import anyrank_command, mpiexec, run_anyrank

from anyrank.verify.case import PERTURBATIONS, REFERENCE, Case
from anyrank.verify.explain import first_difference
from anyrank.verify.matrix import CaseMatrix
from anyrank.verify.rank import DELAY, DELAYED_STEPS
from anyrank.verify.runner import FAILED, SAME, Runner
from anyrank.verify.verification import Verification

BROKEN = Path(__file__).parents[1] / "broken"
CHANCES = Path(__file__).with_name("chances.py")
EXAMPLES = Path(__file__).parents[2] / "examples"
ONE, TWO, THREE, PARTS = Case(), Case((2,)), Case((3,)), Case(changed="parts")


@dataclass(frozen=True)
class SomeCases(CaseMatrix):
    """A plan of the reference and of some cases."""

    cases: tuple[Case, ...] = ()

    def first(self) -> list[Case]:
        return [REFERENCE]

    def rest(self, steps: int, axes: int) -> list[Case]:
        return list(self.cases)


def runner(tmp_path: Path, program: Path | str, timeout: float = 100, **parameters) -> Runner:
    file = tmp_path / "parameters.toml"
    file.write_text(tomli_w.dumps(parameters))
    (tmp_path / "runs").mkdir()
    return Runner(str(program), file, tmp_path / "runs", timeout)


def verify_cases(tmp_path: Path, program: Path | str, *cases: Case, **parameters) -> tuple[int, str]:
    output: list[str] = []
    code = Verification(runner(tmp_path, program, **parameters), SomeCases(cases=cases), output.append).execute()
    return code, "\n".join(output)


#: The cases of the quick matrix that find each bug, and the message; `uninitialized` has a test of its own.
BUGS = {
    "rank_seed": ((ONE, TWO), "ranks: 2 instead of 1", "First at step 0, in x[6]; 6 of 12 elements differ:"),
    "float_sum": ((ONE, TWO, THREE), "ranks: 2 instead of 1", "First at step 1, in mean (and in x):"),
    "no_halo": (
        (ONE, TWO),
        "ranks: 2 instead of 1",
        """First at step 1, in T[5]; 2 of 12 elements differ:
    case 2: 1 rank, split auto, body auto, straight
      2.25  0x4002000000000000  owned by rank 0 of 1
    case 3: 2 ranks, split auto, body auto, straight
      2.0  0x4000000000000000  owned by rank 0 of 2
""",
    ),
    "corner": (
        (Case((4,), split="rows"), Case((4,), split="bricks")),
        "split: bricks instead of rows",
        "First at step 1, in T[0, 0]; 13 of 144 elements differ:",
    ),
    "outside_state": (
        (ONE, TWO, Case((1, 2), (3,))),
        "restart: stopped at step 3 on 1→2 instead of straight on 1",
        "First at step 4, in height[0]; 12 of 12 elements differ:",
    ),
    "wall_time": ((TWO, Case((2,), changed="clock")), "clock", "First at step 1, in x[0]; 12 of 12 elements differ:"),
    "file_order": ((TWO, Case((2,), changed="file order")), "file order", "First at step 1, in total:"),
    "own_rows": (
        (ONE, PARTS),
        "parts: small regions of a block instead of the whole block",
        "First at step 1, in T[1, 1]; 32 of 144 elements differ:",
    ),
    "whole_mask": (
        (ONE, PARTS),
        "parts: small regions of a block instead of the whole block",
        "because a kernel is called on parts of the block.\n"
        "  The kernel depends on how a block is divided into regions.",
    ),
    "counts_cells": (
        (THREE, Case((3,), changed="halo steps")),
        "halo steps",
        "First at step 1, in warm:",
    ),
    "rank_series": (
        (ONE, TWO),
        "ranks: 2 instead of 1",
        """but series.csv, series.h5 differ; first in line 2 of series.csv, step,mean:
    case 2: 1 rank, split auto, body auto, straight
      0,11.0
    case 3: 2 ranks, split auto, body auto, straight
      0,5.0
""",
    ),
    "uses_steps": (
        (ONE, TWO, Case((1, 2), extended=3)),
        "extended: extended from 3 steps on 1→2 instead of straight on 1",
        "First at step 1, in x[0]; 12 of 12 elements differ:",
    ),
    "some_ranks": ((ONE, TWO), "ranks: 2 instead of 1", "rank 1: Barrier() at some_ranks.py:21 in step"),
}
AXES = {"corner": 2, "own_rows": 2, "file_order": 2}


@pytest.mark.parametrize("bug", BUGS)
def test_verify_planted_bug_is_found_and_named(tmp_path, bug):
    cases, cause, place = BUGS[bug]
    matrix = CaseMatrix(quick=True, deep_halos=bug == "counts_cells", extendable=bug == "uses_steps")
    assert {*cases} <= {*matrix.first(), *matrix.rest(6, AXES.get(bug, 1))}, "the quick matrix finds it"
    parameters = {"steps": 6} if bug == "uses_steps" else {}
    code, output = verify_cases(tmp_path, BROKEN / f"{bug}.py", *cases, **parameters)
    assert code == 1
    result = [line for line in output.splitlines() if line.startswith("FOUND: ")]
    assert len(result) == 1 and result[0] == f"FOUND: {cause}", output
    assert place in output, output
    assert "the runs are not reproducible" not in output
    assert ("Also seen in case 4." in output) == (bug == "float_sum")


def test_perturbations_change_one_thing_each(tmp_path):
    run = runner(tmp_path, CHANCES).run
    reference = run(REFERENCE)
    changed = {name: run(Case(body="reference", changed=name)) for name in ("again", *PERTURBATIONS)}
    differ = {name: first_difference(reference.trace, outcome.trace) for name, outcome in changed.items()}
    assert differ == {
        "again": None,
        "memory": (1, ["small", "large"]),
        "clock": (1, ["clock"]),
        "chance": (1, ["seeds"]),
        "file order": (1, ["files"]),
        "hash seed": (1, ["hashes"]),
    }


def test_memory_has_other_bytes_on_each_rank(tmp_path):
    """A comparison may hide one value: neither -3.7e-103 nor 1.2e+103 is between 0 and 1."""
    outcome = runner(tmp_path, CHANCES).run(Case((3,), changed="memory"))
    with h5py.File(outcome.checkpoint(1), "r") as file:
        values = file["fields/small"][...].view(np.uint8).reshape(3, -1)
    assert [{*map(int, row)} for row in values] == [{0x55}, {0x3F}, {0}]


def test_hash_seed_differs_between_ranks(tmp_path):
    """As it does without PYTHONHASHSEED; two seeds often give a small set the same order."""
    run = runner(tmp_path, CHANCES).run
    outcome = run(Case((3,), changed="hash seed"))
    assert run(THREE).verdict == SAME and outcome.verdict == FAILED
    assert "the Scalar hashes must be the same on all ranks" in outcome.message


def test_timing_perturbation_delays_the_ranks(tmp_path):
    outcome = runner(tmp_path, BROKEN / "outside_state.py", steps=DELAYED_STEPS).run(Case(changed="timing"))
    assert outcome.summary["seconds"] >= DELAYED_STEPS * DELAY


def test_verify_unpinned_chance_is_the_only_finding(tmp_path):
    again = Case(body="reference", changed="again")
    code, output = verify_cases(tmp_path, CHANCES, again, Case(changed="clock"), n=5)
    assert code == 1 and output.count("FOUND: ") == 1 and "FOUND: again\n" in output
    assert "in entropy" in output and "the runs are not reproducible" in output


WORDS = """
from anyrank import Program, param
class Words(Program):
    steps: int = param(3, "steps")
    how: str = param("", "how")
    def declare(self, state):
        shape = (8 + state.world.size if self.how == "shape" else 8,)
        state.field("x", shape)
        if self.how == "declare" and state.world.rank: state.scalar("y", 1)
    def step(self, state):
        import time
        if self.how == "raise" and state.world.size > 1: raise ValueError("bad luck")
        if self.how == "all": raise ValueError("bad luck")
        if self.how == "slow" and state.world.size > 1: time.sleep(1)
    def done(self, state):
        more = {"slow": 100, "done": state.world.size}.get(self.how, 0)
        return state.step >= self.steps + more
    def result(self, state):
        return {"ranks": state.world.size if self.how == "result" else 1, "other": 5}
"""
DIFFERENCES = {
    "raise": ("FAILED", "ValueError: bad luck"),
    "declare": ("FAILED", "the ranks declare different states"),
    "shape": (
        "DIFFERS at step 0",
        "First at step 0, in x: float64 of shape (9,) in one and float64 of shape (10,)",
    ),
    "done": ("DIFFERS at step 5", "but one run ends at step 4, the other at step 5:"),
    "result": ("DIFFERS in its result", "the result differs in ranks:"),
}


@pytest.mark.parametrize("how", DIFFERENCES)
def test_verify_kinds_of_difference_are_reported(tmp_path, how):
    (tmp_path / "words.py").write_text(WORDS)
    verdict, words = DIFFERENCES[how]
    code, output = verify_cases(tmp_path, tmp_path / "words.py", TWO, how=how)
    assert code == 1 and f"  {verdict}\n" in output and output.count(words) == 1, output


LATE = """
from pathlib import Path
from anyrank import Kernel, Program, UsageError, param
KEEP = Kernel(lambda new, x: new.__setitem__(..., x[1:-1]))
class Late(Program):
    deep_halos = True
    steps: int = param(2, "steps")
    how: str = param("", "how")
    def declare(self, state):
        state.field("x", (8,), halo=1)
    def step(self, state):
        if self.how == "write":
            state.x[...] = state.x.local + 1
            state.x.advance(KEEP)
        if self.how == "differ" and state.world.size > 1:
            if state.step == 1: raise ValueError("too late")
            state.x[...] = 1
        if self.how == "refuse" and state.world.size > 1: raise UsageError("ranks are bad")
"""


@pytest.mark.parametrize(
    ("how", "case", "words"),
    [
        ("write", Case((2,), changed="halo steps"), "field x is written between steps"),
        ("write", Case((2,), changed="halo steps"), "remove deep_halos = True"),
        ("refuse", TWO, "ranks are bad"),
    ],
)
def test_verify_refusal_after_the_start_is_a_failure(tmp_path, how, case, words):
    """Not an impossible case: the run began, so that the program itself is refused."""
    (tmp_path / "late.py").write_text(LATE)
    code, output = verify_cases(tmp_path, tmp_path / "late.py", ONE, TWO, case, how=how)
    assert code == 1 and "  FAILED\n" in output and " ".join(output.split()).count(words) == 1, output


def test_verify_failure_after_a_difference_is_a_difference(tmp_path):
    (tmp_path / "late.py").write_text(LATE)
    code, output = verify_cases(tmp_path, tmp_path / "late.py", ONE, TWO, Case((2,), changed="memory"), how="differ")
    assert code == 1 and output.count("  DIFFERS at step 1, then FAILED\n") == 2 and output.count("FOUND") == 1, output
    assert "First at step 1, in x[0]" in output and "Later, case 3 fails: ValueError: too late" in output, output


def test_verify_resume_on_too_many_ranks_is_not_possible(tmp_path):
    """The first run began, but the second did not."""
    (tmp_path / "late.py").write_text(LATE)
    code, output = verify_cases(tmp_path, tmp_path / "late.py", Case((1, 9), (1,)))
    assert code == 0 and "1 cases, 1 more not possible" in output, output
    assert "Note: the State has the same bits at every step" in output


def test_verify_refused_reference_has_status_2(tmp_path):
    (tmp_path / "late.py").write_text(LATE.replace("size > 1", "size > 0"))
    done = run_anyrank("verify", "late.py", "--how", "refuse", "--out", "runs", cwd=tmp_path)
    assert done.returncode == 2 and "ranks are bad" in done.stderr, done.stderr


RACE = """
import os
from anyrank import Program, param
class Race(Program):
    steps: int = param(2, "steps")
    def declare(self, state):
        state.scalar("x", 0)
    def step(self, state):
        state.x = state.world.bcast(int.from_bytes(os.urandom(4), "big")) if state.world.size > 1 else 1
"""


def test_verify_race_is_the_only_finding(tmp_path):
    """A race needs two ranks, so the reference repeats its bits, and other perturbations seem to be the cause."""
    (tmp_path / "race.py").write_text(RACE)
    cases = (ONE, TWO, *(Case((2,), changed=name) for name in PERTURBATIONS))
    code, output = verify_cases(tmp_path, tmp_path / "race.py", *cases)
    assert code == 1 and output.count("FOUND: ") == 1 and "FOUND: again\n" in output, output
    assert "Note: " not in output
    assert "Also seen in case 3, 5, 6, 7, 8." in output, output


def test_verify_timing_of_a_failing_case_is_left_out(tmp_path):
    """It has no --check, so that ranks which make different calls would wait until the time limit."""
    (tmp_path / "words.py").write_text(WORDS)
    code, output = verify_cases(tmp_path, tmp_path / "words.py", TWO, Case((2,), changed="timing"), how="raise")
    assert code == 1 and "2 cases, 0 more not possible" in output and "other timing" not in output, output


def test_verify_case_beyond_its_timeout_is_killed_with_its_ranks(tmp_path):
    (tmp_path / "words.py").write_text(WORDS)
    outcome = runner(tmp_path, tmp_path / "words.py", timeout=5, how="slow").run(TWO)
    assert outcome.verdict == FAILED and "killed, because it did not end within 5 s (--timeout)" in outcome.message
    give_up = time.monotonic() + 30
    while any(str(tmp_path).encode() in _read(path) for path in Path("/proc").glob("[0-9]*/cmdline")):
        assert time.monotonic() < give_up, "ranks live on"
        time.sleep(0.1)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


#: Weather in most of the quick matrix; .ci/run verifies weather and pi in the full one.
CLEAN = {
    "weather": ("weather", "--rows", 12, "--columns", 10, "--steps", 8, "--initial", "shear", "--ranks", "1,3"),
    "heat": (EXAMPLES / "heat.py", "--n", 9, "--steps", 6, "--ranks", 1),
}


@pytest.mark.parametrize("program", ["heat"])  # .ci/run verifies more of them, in full
def test_verify_our_programs_are_clean(tmp_path, program):
    junit = tmp_path / "junit.xml"
    done = run_anyrank("verify", *CLEAN[program], "--quick", "--junit", junit, env={"TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.strip()[:1].isdigit()]
    cases = [line for line in rows if line.endswith("  same")]
    assert (
        rows[-1] == f"{len(cases)} cases, 0 more not possible: the same bits at every step."
        and len(rows) == len(cases) + 1
    )
    suite = ElementTree.parse(junit).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == (str(len(cases)), "0", "0")
    assert [*tmp_path.iterdir()] == [junit], "what is clean leaves nothing behind"


def test_verify_writes_and_compares_frames_and_series(tmp_path):
    outputs = ("--frames", "T", "--frames-every", 2, "--observe-every", 3)
    done = run_anyrank("verify", *CLEAN["heat"], "--quick", *outputs, "--out", tmp_path / "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("frames.nc", "series.csv"):
        contents = {path.read_bytes() for path in (tmp_path / "runs").glob(f"*/run/{name}")}
        assert len([*(tmp_path / "runs").glob(f"*/run/{name}")]) > 3 and len(contents) == 1
    refused = run_anyrank("verify", *CLEAN["heat"], "--quick", *outputs[:2])
    assert refused.returncode == 2 and "needs the interval in steps between two frames" in refused.stderr


def test_verify_wrong_program_gives_table_finding_and_runs(tmp_path):
    words = ("--quick", "--ranks", 1, "--junit", "j.xml", "--out", "runs")
    done = run_anyrank("verify", BROKEN / "uninitialized.py", *words, cwd=tmp_path)
    assert done.returncode == 1 and not done.stderr, done.stderr
    table, finding, body, end = done.stdout.split("\n\n")
    rows = [line.split() for line in table.splitlines()]
    assert rows[0] == ["case", "ranks", "split", "body", "what", "steps", "digest", "seconds", "verdict"]
    assert rows[1][:5] == ["1", "1", "auto", "reference", "reference"] and rows[1][-1] == "same"
    assert rows[4][:4] == ["4", "1", "auto", "shim"] and rows[4][-1] == "FAILED"
    assert rows[5][:5] == ["5", "1→1", "auto", "auto", "stopped"] and rows[5][-1] == "same"
    assert rows[6][:5] == ["6", "1→1", "auto", "auto", "extended"] and rows[6][-1] == "same"
    assert rows[7][:6] == ["7", "1", "auto", "auto", "other", "memory"]
    assert " ".join(rows[7][-4:]) == "DIFFERS at step 2" and len(rows) == 13
    assert body.startswith("FOUND: body: shim instead of reference") and "an array of the GPU is not converted" in body
    assert finding.startswith("FOUND: memory\n  First at step 2, in x[0]; 12 of 12 elements differ:\n")
    assert end.startswith("12 cases, 0 more not possible: 2 differ from the reference") and "runs are kept in" in end
    assert json.loads((tmp_path / "runs" / "001" / "run" / "summary.json").read_text())["finished"]
    suite = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), len(suite)) == ("12", "2", 12)
    failure = suite.find("testcase[7]/failure")
    assert failure.get("message") == "DIFFERS at step 2" and failure.text == finding


def test_verify_failing_reference_ends_the_matrix(tmp_path):
    (tmp_path / "words.py").write_text(WORDS)
    words = ("verify", "words.py", "--how", "all", "--junit", "j.xml", "--out", "runs")
    done = run_anyrank(*words, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout.count("FAILED") == 1
    assert (
        done.stderr.startswith("anyrank: the reference case fails, so no case can be compared with it")
        and done.stderr.count("ValueError: bad luck") == 1
    )
    suite = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")


BAD = {
    "ranks": (("--ranks", "1;2"), "--ranks '1;2' must be whole numbers from 1, joined by commas"),
    "more ranks than allowed": (("--ranks", "1,4097"), "--ranks 1,4097: 4097 is more than the limit of"),
    "more than --allow": (("--allow", 3), "4 is more than the limit of 3 of --allow. Use at most 3, or --allow 4."),
    "body": (("--body", "numba,fortran"), "--body 'fortran' must be one of auto"),
    "split": (("--split", "rows,2x2"), "--split '2x2' must be one of auto, rows, columns, bricks"),
    "junit": (("--junit", "nowhere/j.xml"), "--junit nowhere/j.xml cannot be written"),
    "out": (("--out", "."), "--out . cannot be made: File exists"),
    "timeout": (("--timeout", "soon"), "--timeout 'soon' is not a duration"),
    "parameter": (("--points", 0), "pi: --points 0 must be at least 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_verify_bad_input_is_refused_before_any_work(tmp_path, case, refused):
    words, expected = BAD[case]
    done = refused("verify", "pi", *words, cwd=tmp_path, env={"TMPDIR": str(tmp_path)})
    assert done.returncode == 2 and done.stderr.count(expected) == 1, done.stderr
    assert not done.stdout and "Traceback" not in done.stderr and not list(tmp_path.iterdir())


def test_verify_file_with_an_import_error_shows_one_traceback(tmp_path):
    (tmp_path / "typo.py").write_text("from anyrank import Program\n\nundefined_name\n")
    done = run_anyrank("verify", "typo.py", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("NameError: name 'undefined_name'") == 1
    assert 'typo.py", line 3' in done.stderr and "importlib" not in done.stderr and not done.stdout


def test_verify_under_mpiexec_is_refused_once():
    done = mpiexec(2, *anyrank_command("verify", "pi"))
    assert done.returncode == 2 and done.stderr.count("run it without mpiexec") == 1


def test_verify_impossible_case_is_not_a_failure(tmp_path):
    halo = Case((5,)), Case((2,), body="cython")
    code, output = verify_cases(tmp_path, BROKEN / "corner.py", *halo, n=4, steps=1)
    assert code == 0, output
    assert "not possible: the domain of 4×4 is too small for 5 ranks" in output
    assert "not possible: no kernel of the program has this body" in output
    assert "1 cases, 2 more not possible: the same bits at every step." in output
