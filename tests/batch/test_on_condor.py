"""Runs on the fake HTCondor of fake_condor.py; all are submitted at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from batch.cluster import Condor, digest_of_storm, run_fake
from slurm import wait_until

pytest.importorskip("classad2", reason="HTCondor's Python bindings are not installed")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def condor(tmp_path_factory) -> Iterator[Condor]:
    with run_fake(Condor, tmp_path_factory.mktemp("cluster")) as fake:
        yield fake


@pytest.fixture(scope="module")
def storm_digest(tmp_path_factory) -> str:
    return digest_of_storm(tmp_path_factory.mktemp("uninterrupted") / "run")


LIMITED, LONG = ("--walltime", "8s"), ("--walltime", "10min")
SWEEP = """
program = "{program}:Flaky"
out = "{out}"
[parameters]
points = 2e5
broken = "{gate}"
[grid]
seed = [4, 1, 9]
"""
DIAMOND = """
out = "{out}"
[job]
walltime = "8s"
[runs.A]
program = "{program}:Flaky"
parameters = {{ points = 200000, seed = 1 }}
[runs.B]
needs = ["A"]
program = "{program}:Storm"
parameters = {{ rows = 12, columns = 8, steps = 200, gate = "{gate}" }}
options = {{ picture = false }}
[runs.C]
needs = ["A"]
program = "{program}:Flaky"
parameters = {{ points = 200000, seed = {seed}, broken = "{gate}" }}
[runs.D]
needs = ["B", "C"]
command = ["touch", "{out}/D/made"]
"""
#: One run and a command that needs it, and another run, which is delayed.
TWO = """
out = "{out}"
[runs.A]
program = "{program}:Flaky"
parameters = {{ points = 200000, seed = 9, broken = "{broken}" }}
[runs.D]
needs = ["A"]
command = ["touch", "{out}/D/made"]
[runs.B]
program = "{program}:Storm"
parameters = {{ rows = 12, columns = 8, steps = 2000, gate = "{gate}" }}
"""


@pytest.fixture(scope="module", autouse=True)
def runs(condor) -> dict[str, Path]:
    """All runs, submitted together; the wall time stops those behind the gate `limited` once."""
    gates = {
        name: condor.gate(name) for name in ("evicted", "removed", "once", "limited", "sweep", "link", "broken", "two")
    }
    held = {"gate": gates["limited"]}
    fake = {
        "good": condor.study("good", DIAMOND, seed=2, **held),
        "bad": condor.study("bad", DIAMOND, seed=9, **held),
        "a path with 'spaces'": condor.storm("a path with 'spaces'", *LIMITED, **held),
        "chain": condor.storm("chain", *LIMITED, "--chain", 5, **held),
        "link": condor.storm("link", *LONG, "--chain", 2, gate=gates["link"]),
        "once": condor.storm("once", *LIMITED, "--max-attempts", 1, gate=gates["once"]),
        "two": condor.study("two", TWO, broken=gates["broken"], gate=gates["two"]),
        "sweep": condor.study("sweep", SWEEP, gate=gates["sweep"]),
        **{name: condor.storm(name, *LONG, gate=gates[name]) for name in ("evicted", "removed")},
    }
    limited = [*(fake[name] for name in ("a path with 'spaces'", "chain")), condor.folder / "good/B"]
    condor.open(gates["limited"], *limited)
    return fake


@pytest.mark.parametrize("name", ["evicted", "link"])
def test_condor_evicted_run_checkpoints_and_restarts(condor, runs, storm_digest, name):
    run = runs[name]
    condor.wait_until_started(run)
    condor.run("condor_vacate_job", condor.running(run / "job" / "condor.log"))
    condor.wait_until_started(run, 2)
    assert condor.attempts(run) == ["75", "…"]
    (condor.folder / f"{name}.gate").unlink()
    assert condor.finished(run)["digest"] == storm_digest


def test_condor_cancelled_run_checkpoints_and_leaves_the_queue(condor, runs):
    run, job = runs["removed"], condor.job(runs["removed"])
    condor.wait_until_started(run)
    assert f"is already queued as job {job}" in condor.anyrank("submit", run, status=2)
    assert f"cancelled {job}" in condor.anyrank("cancel", run)
    condor.tried(run, "75")
    wait_until(lambda: condor.standing(run)["removed"]["state"] == "cancelled", 20, lambda: condor.log_text(run), 1)
    assert "nothing is queued or running" in condor.anyrank("cancel", run)


def test_condor_sweep_resubmits_only_failed_points(condor, runs):
    study, bad = runs["sweep"], ("0000", "0002")
    for name, status in (("0000", "1"), ("0001", "0"), ("0002", "1")):
        condor.tried(study / name, status)
    (condor.folder / "sweep.gate").unlink()
    assert "1 of 3 runs not submitted" in condor.submit("sweep.toml")
    for name in bad:
        condor.finished(study / name)
    cluster = condor.job(study / "0000").partition(".")[0]
    assert [condor.job(study / name) for name in bad] == [f"{cluster}.0", f"{cluster}.1"]
    assert [status["state"] for status in condor.standing(study).values()] == ["finished"] * 3


def test_condor_max_attempts_ends_the_run_as_stopped(condor, runs):
    run = runs["once"]
    condor.tried(run, "75")
    wait_until(lambda: condor.standing(run)["once"]["state"] == "stopped", 20, lambda: condor.log_text(run), 1)
    assert "1 attempts are used up (--max-attempts)" in condor.log_text(run)
    assert condor.standing(run)["once"]["reason"] == "Normal termination (return value 1)"


@pytest.mark.parametrize("name", ["a path with 'spaces'", "chain"])
def test_condor_run_over_its_wall_time_restarts(condor, runs, storm_digest, name):
    run, job = runs[name], condor.job(runs[name])
    summary = condor.finished(run)
    assert summary["digest"] == storm_digest and summary["resumed_from"] > 0 and condor.job(run) == job
    [status] = condor.standing(run).values()
    assert (status["state"], status["attempts"], status["jobs"]) == ("finished", len(condor.attempts(run)), [job])


def test_condor_diamond_runs_in_order_and_skips_dependents(condor, runs, storm_digest):
    """A run that needs a failed run never starts."""
    good, bad = runs["good"], runs["bad"]
    wait_until(lambda: (good / "D" / "made").exists(), 30, lambda: condor.anyrank("status", good))
    assert condor.attempts(good / "B")[0] == "75" and condor.finished(good / "B")["digest"] == storm_digest
    assert (good / "D" / "made").stat().st_mtime > (good / "B" / "summary.json").stat().st_mtime
    condor.finished(bad / "B")
    wait_until(lambda: condor.standing(bad)["D"]["state"] == "never", 20, lambda: condor.anyrank("status", bad), 1)
    ends = condor.standing(bad)
    assert [ends[name]["state"] for name in "ABCD"] == ["finished", "finished", "failed", "never"]
    assert ends["D"]["reason"].startswith("needs C, which failed") and "seed 9 is broken" in ends["D"]["reason"]


def test_condor_dag_resubmits_failed_run_while_others_run(condor, runs):
    study = runs["two"]
    condor.tried(study / "A", "1")
    wait_until(lambda: condor.standing(study)["D"]["state"] == "never", 30, lambda: condor.anyrank("status", study), 1)
    (condor.folder / "broken.gate").unlink()
    assert "1 of 3 runs not submitted" in condor.submit("two.toml")
    wait_until(lambda: (study / "D" / "made").exists(), 30, lambda: condor.anyrank("status", study))
    assert condor.attempts(study / "B") == ["…"]
    assert f"cancelled {condor.job(study / 'B')}" in condor.anyrank("cancel", study)
    condor.tried(study / "B", "75")
