"""Logs of real HTCondor pools, read as HTCondor's own library reads them (sources: tests/batch/fixtures/README.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from anyrank.batch.htcondor import parse_log
from anyrank.batch.scheduler import JobState

FIXTURES = Path(__file__).parent / "fixtures" / "htcondor"
#: Events as condor_event.cpp writes them: a job that was requeued after status 75, and what may follow.
RUN = "".join(f"\t\tUsr 0 00:00:00, Sys 0 00:00:00  -  Run {where} Usage\n" for where in ("Remote", "Local"))
BYTES = "\t0  -  Run Bytes Sent By Job\n\t0  -  Run Bytes Received By Job\n"
USAGE = RUN + RUN.replace("Run", "Total") + BYTES + BYTES.replace("Run", "Total")
REQUEUED = f"""\
000 (012.003.000) 2026-01-02 03:04:05 Job submitted from host: <10.0.0.1:9618>
...
001 (012.003.000) 2026-01-02 03:04:06 Job executing on host: <10.0.0.2:9618>
...
004 (012.003.000) 2026-01-02 03:04:07 Job was evicted.
\t(0) Job terminated and was requeued
{RUN}{BYTES}\t(1) Normal termination (return value 75)
\tThe OnExitRemove expression 'ExitCode =!= 75' evaluated to False
...
"""
LATER = {
    "001 Job executing on host: <10.0.0.2:9618>\n": JobState("running"),
    "010 Job was suspended.\n\tNumber of processes actually suspended: 1\n": JobState(
        "running", "Job was suspended. Number of processes actually suspended: 1"
    ),
    f"004 Job was evicted.\n\t(0) CPU times\n{RUN}{BYTES}\tReason: Job vacated by schedd\n": JobState(
        "waiting", "Job was evicted. Job vacated by schedd"
    ),
    f"005 Job terminated.\n\t(0) Abnormal termination (signal 9)\n\t(0) No core file\n{USAGE}": JobState(
        "ended", "Abnormal termination (signal 9)"
    ),
    f"005 Job terminated.\n\t(1) Normal termination (return value 1)\n{USAGE}": JobState(
        "ended", "Normal termination (return value 1)"
    ),
}


def log_with_event(event: str) -> str:
    """The log of that job with one more event."""
    return f"{REQUEUED}{event[:4]}(012.003.000) 2026-01-02 03:04:08 {event[4:]}...\n"


def parse_fixture(name: str) -> dict[str, JobState]:
    return parse_log((FIXTURES / name).read_text())


def test_condor_log_processes_of_a_cluster_are_separate():
    removed = JobState("ended", "Job was aborted. via condor_rm (by user user)")
    assert parse_fixture("ewms-cluster.log") == {
        "104501503.0": JobState("ended"),
        "104501503.1": JobState("running"),
        **{f"104501503.{process}": JobState("waiting") for process in (2, 3, 5)},
        "104501503.6": removed,
        "104500588.5": removed,
    }


def test_condor_log_held_job_waits_with_the_reason():
    held = parse_fixture("chtc-held-evicted.log")["82567314.3993"]
    assert held.state == "waiting"
    assert held.reason.startswith("Job was held. Error from slot1_8@spalding10.chtc.wisc.edu: STARTER at")


def test_condor_log_released_job_runs():
    assert parse_fixture("held-released.log") == {"2456301.0": JobState("running")}


def test_condor_log_requeued_job_waits():
    assert parse_fixture("requeued.log")["3237.0"] == JobState(
        "waiting", "Job was evicted. Normal termination (return value 3)"
    )


def test_condor_log_job_over_the_wall_time_is_ended():
    why = "Job was aborted. Job removed by SYSTEM_PERIODIC_REMOVE due to wall time exceeded allowed max."
    assert parse_fixture("cern-wall-time.log") == {"11878665.0": JobState("ended", why)}


@pytest.mark.parametrize("event, state", LATER.items())
def test_condor_log_last_event_counts(event, state):
    assert parse_log(REQUEUED) == {"12.3": JobState("waiting", "Job was evicted. Normal termination (return value 75)")}
    assert parse_log(log_with_event(event)) == {"12.3": state}


def test_condor_log_incomplete_event_is_ignored():
    whole = log_with_event("005 Job terminated.\n\t(1) Normal termination (return value 1)\n")
    assert parse_log(whole.removesuffix("...\n")) == parse_log(REQUEUED)


@pytest.mark.parametrize("log", [*sorted(FIXTURES.glob("*.log")), *LATER], ids=lambda log: getattr(log, "name", None))
def test_condor_log_states_match_htcondors_library(log, tmp_path):
    htcondor2 = pytest.importorskip("htcondor2", reason="HTCondor's Python bindings are not installed")
    if isinstance(log, str):
        (tmp_path / "log").write_text(log_with_event(log))
        log = tmp_path / "log"
    states, reasons = {}, {}
    for event in htcondor2.JobEventLog(str(log)).events(stop_after=0):
        job, kind = f"{event.cluster}.{event.proc}", event.type.name
        if kind in STATES:
            states[job] = STATES[kind]
            reasons[job] = [str(event[key]) for key in ATTRIBUTES.get(kind, ()) if event.get(key)]
    result = parse_log(log.read_text())
    assert {job: state.state for job, state in result.items()} == states
    for job, state in result.items():
        assert all(reason in state.reason for reason in reasons[job]), (state, reasons[job])


#: The same states by the library's event names, and the attributes whose values our reasons must contain.
STATES = {
    **dict.fromkeys(("SUBMIT", "JOB_EVICTED", "SHADOW_EXCEPTION", "JOB_HELD", "JOB_RELEASED"), "waiting"),
    **dict.fromkeys(("EXECUTE", "JOB_SUSPENDED"), "running"),
    **dict.fromkeys(("JOB_TERMINATED", "JOB_ABORTED"), "ended"),
}
ATTRIBUTES = {
    "JOB_EVICTED": ("ReturnValue", "TerminatedBySignal"),
    "JOB_TERMINATED": ("ReturnValue", "TerminatedBySignal"),
    "JOB_HELD": ("HoldReason",),
    "JOB_RELEASED": ("Reason",),
    "JOB_ABORTED": ("Reason",),
}
