"""Runs on an HTCondor that does what a real one would (fake_condor.py): all are submitted at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from batch.cluster import Condor, digest_of_storm, keeping
from slurm import wait_until

pytest.importorskip("classad2", reason="HTCondor's Python bindings are not installed")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def condor(tmp_path_factory) -> Iterator[Condor]:
    with keeping(Condor, tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> str:
    return digest_of_storm(tmp_path_factory.mktemp("whole") / "run")


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
#: A run and a command that needs it, and another run, which is held up.
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
parameters = {{ rows = 12, columns = 8, steps = 200, gate = "{gate}" }}
"""


@pytest.fixture(scope="module", autouse=True)
def runs(condor) -> dict[str, Path]:
    """All runs, submitted together; those that the gate `limited` holds up are stopped by their wall time once."""
    gates = {
        name: condor.gate(name) for name in ("evicted", "removed", "once", "limited", "sweep", "link", "broken", "two")
    }
    held = {"gate": gates["limited"]}
    made = {
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
    limited = [*(made[name] for name in ("a path with 'spaces'", "chain")), condor.folder / "good/B"]
    condor.open(gates["limited"], *limited)
    return made


@pytest.mark.parametrize("name", ["evicted", "link"])
def test_evicted_it_leaves_a_checkpoint_and_starts_again(condor, runs, whole, name):
    run = runs[name]
    condor.started(run)
    condor.run("condor_vacate_job", condor.running(run / "job" / "condor.log"))
    condor.started(run, 2)
    assert condor.attempts(run) == ["75", "…"]
    (condor.folder / f"{name}.gate").unlink()
    assert condor.finished(run)["digest"] == whole


def test_removed_it_leaves_a_checkpoint_and_the_queue(condor, runs):
    run, job = runs["removed"], condor.job(runs["removed"])
    condor.started(run)
    assert f"is already queued as job {job}" in condor.anyrank("submit", run, status=2)
    assert f"cancelled {job}" in condor.anyrank("cancel", run)
    condor.tried(run, "75")
    wait_until(lambda: condor.standing(run)["removed"]["state"] == "cancelled", 20, lambda: condor.told(run), 1)
    assert "nothing is queued or running" in condor.anyrank("cancel", run)


def test_of_a_sweep_only_what_failed_is_submitted_again(condor, runs):
    study, bad = runs["sweep"], ("0000", "0002")
    for name, status in (("0000", "1"), ("0001", "0"), ("0002", "1")):
        condor.tried(study / name, status)
    (condor.folder / "sweep.gate").unlink()
    assert "1 of 3 runs not submitted" in condor.submit("sweep.toml")
    for name in bad:
        condor.finished(study / name)
    cluster = condor.job(study / "0000").partition(".")[0]
    assert [condor.job(study / name) for name in bad] == [f"{cluster}.0", f"{cluster}.1"]
    assert [one["state"] for one in condor.standing(study).values()] == ["finished"] * 3


def test_attempts_are_limited(condor, runs):
    run = runs["once"]
    condor.tried(run, "75")
    wait_until(lambda: condor.standing(run)["once"]["state"] == "stopped", 20, lambda: condor.told(run), 1)
    assert "1 attempts are used up (--max-attempts)" in condor.told(run)
    assert condor.standing(run)["once"]["reason"] == "Normal termination (return value 1)"


@pytest.mark.parametrize("name", ["a path with 'spaces'", "chain"])
def test_stopped_by_its_wall_time_it_starts_again(condor, runs, whole, name):
    run, job = runs[name], condor.job(runs[name])
    summary = condor.finished(run)
    assert summary["digest"] == whole and summary["resumed_from"] > 0 and condor.job(run) == job
    [one] = condor.standing(run).values()
    assert (one["state"], one["attempts"], one["jobs"]) == ("finished", len(condor.attempts(run)), [job])


def test_a_diamond_runs_in_order_and_what_needs_a_failed_run_never_runs(condor, runs, whole):
    good, bad = runs["good"], runs["bad"]
    wait_until(lambda: (good / "D" / "made").exists(), 30, lambda: condor.anyrank("status", good))
    assert condor.attempts(good / "B")[0] == "75" and condor.finished(good / "B")["digest"] == whole
    assert (good / "D" / "made").stat().st_mtime > (good / "B" / "summary.json").stat().st_mtime
    condor.finished(bad / "B")
    wait_until(lambda: condor.standing(bad)["D"]["state"] == "never", 20, lambda: condor.anyrank("status", bad), 1)
    ends = condor.standing(bad)
    assert [ends[name]["state"] for name in "ABCD"] == ["finished", "finished", "failed", "never"]
    assert ends["D"]["reason"].startswith("needs C, which failed") and "seed 9 is broken" in ends["D"]["reason"]


def test_what_failed_is_submitted_again_while_the_rest_of_its_dag_runs(condor, runs):
    study = runs["two"]
    condor.tried(study / "A", "1")
    wait_until(lambda: condor.standing(study)["D"]["state"] == "never", 30, lambda: condor.anyrank("status", study), 1)
    (condor.folder / "broken.gate").unlink()
    assert "1 of 3 runs not submitted" in condor.submit("two.toml")
    wait_until(lambda: (study / "D" / "made").exists(), 30, lambda: condor.anyrank("status", study))
    assert condor.attempts(study / "B") == ["…"]
    assert f"cancelled {condor.job(study / 'B')}" in condor.anyrank("cancel", study)
    condor.tried(study / "B", "75")
