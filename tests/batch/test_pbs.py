"""What qstat of real systems says, understood (tests/batch/fixtures/README.md tells whose)."""

from __future__ import annotations

from pathlib import Path

import pytest

from anyrank.batch.pbs import parse_qstat
from anyrank.batch.scheduler import JobState

FIXTURES = Path(__file__).parent / "fixtures" / "pbs"


def seen(name: str) -> dict[str, JobState]:
    return parse_qstat((FIXTURES / name).read_text())


def test_jobs_of_pbs_professional_wait_run_and_say_why():
    run_at = "Job run at Sat Apr 20 at 01:36 on (b141:ncpus=16)+(b142:ncpus=16)+(b143:ncpus=16)+(b144:ncpus=16)"
    assert seen("pbspro-dependencies.txt") == {
        "68350.mycluster": JobState("waiting", "Not Running: Node is in an ineligible state: offline"),
        "69301.mycluster": JobState("running", run_at),
        "69302.mycluster": JobState("waiting", "depend = afterok:69301.mycluster@mycluster.cluster, Hold_Types = s"),
        "74164.mycluster": JobState("running", "Job run at Mon Apr 22 at 07:17 on (b270:ncpus=16)+(b275:ncpus=16)"),
    }


def test_a_job_that_its_wall_time_ended_tells_its_exit_status():
    why = "Job run at Wed Jun 24 at 15:33 on (gc-prd-hpcn001:ncpus=1) and failed, Exit_status = 271"
    assert seen("pbspro-failed.txt") == {"49223.gc-prd-hpcadm": JobState("ended", why)}


def test_jobs_of_torque_ended_or_never_will_run():
    found = seen("torque.txt")
    assert found["9.torque01.bcgsc.ca"] == JobState("ended", "Job started on Tue May 29 at 09:37")
    assert found["48[1].torque01.bcgsc.ca"].state == "never"
    assert (
        "its dependency of array 43[].torque01.bcgsc.ca can never be satisfied"
        in found["48[1].torque01.bcgsc.ca"].reason
    )


def test_jobs_of_slurm_in_the_words_of_pbs():
    assert {job: what.state for job, what in seen("slurm-torque.txt").items()} == {
        "21": "ended",
        "32": "running",
        "33": "waiting",
        "34": "waiting",
        "35": "running",
    }


@pytest.mark.parametrize(
    "letter, state",
    [
        *((one, "waiting") for one in "QHWTM"),
        *((one, "running") for one in "BRESU"),
        *((one, "ended") for one in "FXC"),
    ],
)
def test_every_state_of_a_job_or_of_a_task_has_a_word(letter, state):
    assert parse_qstat(f"Job Id: 12[3].server\n    job_state = {letter}\n")["12[3].server"].state == state


def test_a_job_deleted_because_of_another_never_ran():
    text = "Job Id: 13.server\n    job_state = F\n    depend = afterok:12.server@server\n    substate = 91\n"
    assert parse_qstat(text)["13.server"] == JobState("never", "depend = afterok:12.server@server")


def test_a_job_that_ran_after_another_and_before_a_third_ended():
    text = "Job Id: 13.server\n    job_state = F\n    depend = beforeok:14.server@server\n    Exit_status = 1\n"
    assert parse_qstat(text)["13.server"] == JobState("ended", "Exit_status = 1")


def test_no_job_is_no_answer():
    assert parse_qstat("") == {}
