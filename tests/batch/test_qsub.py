"""Slurm's emulation of the PBS commands accepts our PBS scripts and runs them on a real Slurm."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator

import pytest
from batch.cluster import Cluster, digest_of_storm

pytestmark = pytest.mark.skipif(
    not shutil.which("qsub") and not os.environ.get("CI"), reason="needs slurm-wlm-torque (no qsub)"
)
WHERE = ("--nodes", 2, "--ranks-per-node", 2, "--walltime", "7min", "--name", "gale")


@pytest.fixture
def pbs(tmp_path, slurm) -> Iterator[Cluster]:
    yield Cluster("pbs", tmp_path, slurm.environment)
    slurm.run("scancel", "--user=root")


def test_qsub_requests_what_the_script_asks_and_qdel_ends_it(pbs, slurm):
    slurm.run("sbatch", "--nodes=3", "--exclusive", "--output=/dev/null", "--wrap=sleep 60")  # nothing else can run
    run = pbs.storm("storm", *WHERE)
    job = slurm.wait_for(pbs.job(run), "PENDING")
    requested = {name: job[name] for name in ("JobName", "NumNodes", "NumTasks", "TimeLimit", "Command", "WorkDir")}
    assert requested | {"NumNodes": requested["NumNodes"][0]} == {
        **{"JobName": "gale", "NumNodes": "2", "NumTasks": "4", "TimeLimit": "00:07:00"},
        **{"Command": str(run / "job" / "script.pbs"), "WorkDir": str(pbs.folder)},
    }
    assert pbs.standing(run)["storm"]["state"] == "waiting"
    assert f"cancelled {pbs.job(run)}" in pbs.anyrank("cancel", run)
    slurm.wait_for(pbs.job(run), "CANCELLED")
    assert pbs.standing(run)["storm"]["state"] == "cancelled"


def test_qsub_script_runs_with_the_same_digest(pbs, tmp_path):
    run = pbs.storm("storm", *WHERE)
    assert pbs.finished(run)["digest"] == digest_of_storm(tmp_path / "whole")
    assert json.loads((run / "summary.json").read_text())["ranks"] == 4
    assert pbs.standing(run)["storm"]["state"] == "finished"
