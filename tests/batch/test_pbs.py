"""Outputs of qstat on real systems (sources: tests/batch/fixtures/README.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from anyrank.batch.pbs import parse_qstat
from anyrank.batch.scheduler import JobState

FIXTURES = Path(__file__).parent / "fixtures" / "pbs"


def parse_fixture(name: str) -> dict[str, JobState]:
    return parse_qstat((FIXTURES / name).read_text())


def test_qstat_pbspro_jobs_wait_and_run_with_reasons():
    run_at = "Job run at Sat Apr 20 at 01:36 on (b141:ncpus=16)+(b142:ncpus=16)+(b143:ncpus=16)+(b144:ncpus=16)"
    assert parse_fixture("pbspro-dependencies.txt") == {
        "68350.mycluster": JobState("waiting", "Not Running: Node is in an ineligible state: offline"),
        "69301.mycluster": JobState("running", run_at),
        "69302.mycluster": JobState("waiting", "depend = afterok:69301.mycluster@mycluster.cluster, Hold_Types = s"),
        "74164.mycluster": JobState("running", "Job run at Mon Apr 22 at 07:17 on (b270:ncpus=16)+(b275:ncpus=16)"),
    }


def test_qstat_job_over_its_wall_time_has_its_exit_status():
    why = "Job run at Wed Jun 24 at 15:33 on (gc-prd-hpcn001:ncpus=1) and failed, Exit_status = 271"
    assert parse_fixture("pbspro-failed.txt") == {"49223.gc-prd-hpcadm": JobState("ended", why)}


def test_qstat_torque_jobs_have_ended_or_never_run():
    result = parse_fixture("torque.txt")
    assert result["9.torque01.bcgsc.ca"] == JobState("ended", "Job started on Tue May 29 at 09:37")
    assert result["48[1].torque01.bcgsc.ca"].state == "never"
    assert (
        "its dependency of array 43[].torque01.bcgsc.ca can never be satisfied"
        in result["48[1].torque01.bcgsc.ca"].reason
    )


def test_qstat_of_slurm_gives_the_states():
    assert {job: state.state for job, state in parse_fixture("slurm-torque.txt").items()} == {
        "21": "ended",
        "32": "running",
        "33": "waiting",
        "34": "waiting",
        "35": "running",
    }


@pytest.mark.parametrize(
    "letter, state",
    [
        *((letter, "waiting") for letter in "QHWTM"),
        *((letter, "running") for letter in "BRESU"),
        *((letter, "ended") for letter in "FXC"),
    ],
)
def test_qstat_every_state_letter_has_a_state(letter, state):
    assert parse_qstat(f"Job Id: 12[3].server\n    job_state = {letter}\n")["12[3].server"].state == state


def test_qstat_job_deleted_with_its_dependency_never_ran():
    text = "Job Id: 13.server\n    job_state = F\n    depend = afterok:12.server@server\n    substate = 91\n"
    assert parse_qstat(text)["13.server"] == JobState("never", "depend = afterok:12.server@server")


def test_qstat_job_with_finished_dependency_has_ended():
    text = "Job Id: 13.server\n    job_state = F\n    depend = beforeok:14.server@server\n    Exit_status = 1\n"
    assert parse_qstat(text)["13.server"] == JobState("ended", "Exit_status = 1")


def test_qstat_empty_output_gives_no_jobs():
    assert parse_qstat("") == {}
