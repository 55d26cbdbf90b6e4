"""Runs on the fake PBS of fake_pbs.py; all are submitted at once, and each test looks at its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batch.cluster import Pbs, digest_of_storm, run_fake
from slurm import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pbs(tmp_path_factory) -> Iterator[Pbs]:
    with run_fake(Pbs, tmp_path_factory.mktemp("cluster")) as fake:
        yield fake


@pytest.fixture(scope="module")
def storm_digest(tmp_path_factory) -> str:
    return digest_of_storm(tmp_path_factory.mktemp("uninterrupted") / "run")


LIMITED, LONG = ("--walltime", "20s"), ("--walltime", "10min")
#: Three storms, of which the first is delayed.
QUEUE = """
program = "{program}:Storm"
out = "{out}"
at_a_time = {at_a_time}
[parameters]
rows = 12
columns = 8
steps = 200
[grid]
gate = ["{gate}", "", "none"]
[options]
picture = false
"""
SWEEP = """
program = "{program}:Flaky"
out = "{out}"
[parameters]
points = 2e5
broken = "{gate}"
[grid]
seed = [4, 1, 9, 2, 3]
"""
DIAMOND = """
out = "{out}"
[job]
walltime = "20s"
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


@pytest.fixture(scope="module", autouse=True)
def runs(pbs) -> dict[str, Path]:
    """All runs, submitted together; the wall time stops those behind the gate `limited` once."""
    gates = {name: pbs.gate(name) for name in ("asked", "deleted", "rerun", "stuck", "queue", "sweep", "limited")}
    held = {"gate": gates["limited"]}
    stuck = pbs.storm("stuck", *LIMITED, "--stuck", gate=gates["stuck"])
    pbs.open(gates["stuck"], stuck)
    fake = {
        "stuck": stuck,
        "good": pbs.study("good", DIAMOND, seed=2, **held),
        "bad": pbs.study("bad", DIAMOND, seed=9, **held),
        "moved": pbs.study("moved", QUEUE, *LIMITED, at_a_time=3, **held),
        "walls": pbs.storm("walls", *LIMITED, "-n", 2, **held),
        "spaces": pbs.storm("a path with 'spaces'", "--walltime", "30s", **held),
        "chain": pbs.storm("chain", *LIMITED, "--chain", 4, **held),
        "sweep": pbs.study("sweep", SWEEP, gate=gates["sweep"]),
        "queue": pbs.study("queue", QUEUE, *LONG, at_a_time=1, gate=gates["queue"]),
        **{name: pbs.storm(name, *LONG, gate=gates[name]) for name in ("asked", "deleted", "rerun")},
    }
    (pbs.state / "slow").write_text(pbs.job(fake["walls"]))
    limited = [fake[name] for name in ("walls", "spaces", "chain")]
    limited += [pbs.folder / name for name in ("good/B", "bad/B", "moved/0000")]
    pbs.open(gates["limited"], *limited)
    return fake


def test_pbs_qsig_checkpoints_and_continues_in_a_new_job(pbs, runs, storm_digest):
    run, job = runs["asked"], pbs.job(runs["asked"])
    pbs.wait_until_started(run)
    pbs.run("qsig", "-s", "SIGUSR1", job)
    pbs.wait_until_started(run, 2)
    assert pbs.attempts(run) == ["75", "…"] and pbs.job(run) != job
    assert pbs.standing(run)["asked"]["state"] == "running"
    (pbs.folder / "asked.gate").unlink()
    assert pbs.finished(run)["digest"] == storm_digest


def test_pbs_qdel_checkpoints_and_leaves_no_job_until_submit(pbs, runs, storm_digest):
    run, job = runs["deleted"], pbs.job(runs["deleted"])
    pbs.wait_until_started(run)
    assert f"is already queued as job {job}" in pbs.anyrank("submit", run, status=2)
    pbs.run("qdel", job)
    pbs.tried(run, "75")
    pbs.gone(job)
    status = pbs.standing(run)["deleted"]
    assert (status["state"], status["jobs"]) == ("stopped", [job]) and status["reason"].endswith("with a checkpoint")
    assert "nothing is queued or running" in pbs.anyrank("cancel", run)
    (pbs.folder / "deleted.gate").unlink()
    pbs.submit(run)
    assert pbs.finished(run)["digest"] == storm_digest and pbs.job(run) != job


def test_pbs_qrerun_continues_under_the_same_id(pbs, runs, storm_digest):
    run, job = runs["rerun"], pbs.job(runs["rerun"])
    pbs.wait_until_started(run)
    pbs.run("env", "PBS_OPERATOR=1", "qrerun", job)
    pbs.wait_until_started(run, 2)
    (pbs.folder / "rerun.gate").unlink()
    summary = pbs.finished(run)
    assert summary["digest"] == storm_digest and summary["resumed_from"] > 0 and pbs.job(run) == job
    pbs.tried(run, "…", "0")


def test_pbs_waiting_tasks_are_unchanged_by_a_new_submission(pbs, runs, storm_digest):
    """The second task is deleted and submitted again while the first runs and the third waits in the same array."""
    study = runs["queue"]
    pbs.anyrank("cancel", study / "0001")
    assert "2 of 3 runs not submitted" in pbs.submit("queue.toml", "--points", 1)
    assert pbs.finished(study / "0001")["digest"] == storm_digest
    assert [pbs.attempts(study / name) for name in ("0000", "0002")] == [["…"], []]
    (pbs.folder / "queue.gate").unlink()
    assert pbs.finished(study / "0002")["digest"] == storm_digest and "[2]" in pbs.job(study / "0002")


def test_pbs_sweep_resubmits_only_failed_points(pbs, runs):
    study, bad = runs["sweep"], {"0000": 4, "0002": 9}

    def ended(*names: str) -> dict[str, Any]:
        for name in names:
            wait_until(lambda run=study / name: pbs.attempts(run)[-1:] not in ([], ["…"]), 30, lambda: str(study))
        return pbs.standing(study)

    first = ended(*(f"000{point}" for point in range(5)))
    assert {name for name, status in first.items() if status["state"] == "failed"} == bad.keys()
    assert "3 of 5 runs not submitted" in pbs.submit("sweep.toml")
    second = ended(*bad)
    array = second["0000"]["jobs"][0].partition("[")[0]
    for index, (name, seed) in enumerate(bad.items()):
        assert second[name]["jobs"] == [f"{array}[{index}].srv"] and f"seed {seed} is broken" in second[name]["reason"]
    assert {name: status for name, status in first.items() if name not in bad} == {
        name: status for name, status in second.items() if name not in bad
    }
    (pbs.folder / "sweep.gate").unlink()
    pbs.submit("sweep.toml", "--points", "1-3")
    assert "[" not in pbs.job(study / "0002"), "PBS has no arrays of one"
    assert "4 of 5 runs not submitted" in pbs.submit("sweep.toml")
    for point in range(5):
        pbs.finished(study / f"000{point}")


CHAIN = """
out = "{out}"
[runs.A]
program = "{program}:Flaky"
parameters = {{ points = 200000, seed = 9, broken = "{gate}" }}
[runs.B]
needs = ["A"]
command = ["touch", "{out}/B/made"]
"""


def test_pbs_server_with_history_gives_the_same_states(tmp_path):
    with run_fake(Pbs, tmp_path) as pbs:
        (pbs.state / "history").touch()
        gate = pbs.gate("chain")
        study = pbs.study("chain", CHAIN, gate=gate)
        pbs.tried(study / "A", "1")
        wait_until(lambda: pbs.standing(study)["B"]["state"] == "never", 20, lambda: pbs.anyrank("status", study), 1)
        assert "seed 9 is broken" in pbs.standing(study)["B"]["reason"]
        assert "Exit_status = 1" in pbs.run("qstat", "-x", "-f", pbs.job(study / "A"))
        gate.unlink()
        pbs.submit("chain.toml")
        wait_until(lambda: (study / "B" / "made").exists(), 20, lambda: pbs.anyrank("status", study))
        assert pbs.standing(study)["A"]["state"] == "finished"


def test_pbs_task_over_its_wall_time_continues_in_its_own_job(pbs, runs, storm_digest):
    study = runs["moved"]
    assert [pbs.finished(study / f"000{point}")["digest"] for point in range(3)] == [storm_digest] * 3
    assert ["[" in pbs.job(study / f"000{point}") for point in range(3)] == [False, True, True]
    assert [status["state"] for status in pbs.standing(study).values()] == ["finished"] * 3


@pytest.mark.parametrize("name", ["walls", "spaces", "chain", "stuck"])
def test_pbs_run_over_its_wall_time_ends_with_the_same_digest(pbs, runs, storm_digest, name):
    run = runs[name]
    summary = pbs.finished(run)
    assert summary["digest"] == storm_digest and (name == "stuck" or summary["resumed_from"] > 0)
    assert pbs.attempts(run)[0] == ("1" if name == "stuck" else "75")
    if name == "walls":
        [status] = pbs.standing(run).values()
        assert (status["state"], status["attempts"]) == ("finished", len(pbs.attempts(run)))
        assert "is finished" in pbs.anyrank("submit", run)


def test_pbs_dependent_run_waits_for_the_continuation_job(pbs, runs, storm_digest):
    good = runs["good"]
    wait_until(lambda: (good / "D" / "made").exists(), 30, lambda: pbs.anyrank("status", good))
    wait_until(lambda: pbs.standing(good)["D"]["state"] == "finished", 30, lambda: pbs.anyrank("status", good), 1)
    assert pbs.attempts(good / "B")[0] == "75" and pbs.finished(good / "B")["digest"] == storm_digest
    assert (good / "D" / "made").stat().st_mtime > (good / "B" / "summary.json").stat().st_mtime


def test_pbs_dependent_of_a_failed_run_never_runs(pbs, runs):
    bad = runs["bad"]
    pbs.finished(bad / "B")
    ends = pbs.standing(bad)
    assert [ends[name]["state"] for name in "ABCD"] == ["finished", "finished", "failed", "never"]
    assert ends["D"]["reason"].startswith("needs C, which failed") and "seed 9 is broken" in ends["D"]["reason"]
    assert not (bad / "D" / "made").exists() and ends["D"]["attempts"] == 0
    assert "2 of 4 runs not submitted" in pbs.submit("bad.toml")
    wait_until(lambda: (bad / "D" / "made").exists(), 30, lambda: pbs.anyrank("status", bad))
