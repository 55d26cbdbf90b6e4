"""`anyrank submit`, `status` and `cancel`: what is refused before any work, and the output of a dry run."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from ranks import anyrank_command, mpiexec, run_anyrank

from anyrank.batch.job import run_statuses, write_ids, write_submission
from anyrank.batch.request import request
from anyrank.batch.scheduler import ENDED, NEVER, RUNNING, WAITING, JobState, Scheduler
from anyrank.batch.site import Site
from anyrank.programs.pi import Pi
from anyrank.runtime.folder import RunFolder

PI = ("submit", "pi", "--points", 1000)
NOWHERE = {"PATH": "/nonexistent"}
SWEEP = 'program = "pi"\n[grid]\nseed = [1, 2, 3]\n[job]\non = "slurm"\n'

BAD = {
    "no such scheduler": (
        (*PI, "--on", "lsf"),
        "--on 'lsf' is not a scheduler: it must be one of htcondor, pbs, slurm.",
    ),
    "no scheduler here": ((*PI,), "--on is required: of htcondor, pbs, slurm, this machine has none."),
    "not this scheduler here": ((*PI, "--on", "slurm"), "--on slurm: sbatch is not on this machine."),
    "unknown site": ((*PI, "--site", "big"), "--site 'big' is unknown: ", "Existing sites: home."),
    "wall time": ((*PI, "--on", "slurm", "--walltime", "soon"), "--walltime 'soon' is not a duration"),
    "warning": ((*PI, "--on", "slurm", "--warning", "2h"), "--warning 2h must be less than --walltime 1:00:00"),
    "more ranks than cores": ((*PI, "--site", "home", "--ranks-per-node", 9), "more than the 8 cores of a node"),
    "more ranks than nodes": (
        (*PI, "--on", "pbs", "-n", 9, "--nodes", 2, "--ranks-per-node", 4),
        "--ranks 9 is more than 2 nodes with 4 ranks each can hold",
    ),
    "a parameter out of range": (("submit", "pi", "--points", 0), "--points 0 must be at least 1"),
    "an option of runs": ((*PI, "--on", "slurm", "--body", "fortran"), "--body 'fortran' must be one of"),
    "a chain in a study": (("submit", "sweep.toml", "--chain", 2), "--chain is only for a run"),
    "a sweep's option": ((*PI, "--on", "slurm", "--at-a-time", 2), "--at-a-time is only for a sweep"),
    "two schedulers": (("submit", "two.toml"), "must all be on one scheduler"),
    "a folder that holds more": (
        ("submit", "strange.toml", "--dry-run"),
        "holds notes.txt, which is not of this study",
    ),
    "another study's run": (("submit", "edited.toml", "--dry-run"), "holds a run with seed = 1, not 5"),
    "no shell": ((*PI, "--on", "slurm", "--launcher", "srun 'x"), '--launcher "srun \'x" cannot be read'),
    "threads of no number": ((*PI, "--site", "home", "--threads", 0), "--threads 0 must be at least 1"),
    "no partitions": ((*PI, "--on", "htcondor", "--partition", "a", "--dry-run"), "HTCondor has no partitions"),
    "an option that is not for jobs": ((*PI, "--on", "slurm", "--hosts", "n1"), "No such option '--hosts'"),
    "no run": (("submit", "empty"), "empty holds no run"),
    "another run": ((*PI, "--on", "slurm", "--out", "other"), "holds notes.txt and no run"),
    "no archive": ((*PI, "--on", "slurm", "--pack", "none.tar"), "--pack ", "none.tar does not exist"),
    "no study": (("submit", "none.toml"), "study none.toml cannot be read"),
    "a parameter that the program lacks": (("submit", "lacks.toml"), "sede = 1 is not a parameter of pi"),
    "a point outside the table": (("submit", "sweep.toml", "--points", "1,3"), "the points of sweep.toml are 0-2"),
    "a job key": (("submit", "job.toml"), "ndoes = 2 is not known here"),
    "an option of runs for a study": (("submit", "sweep.toml", "--body", "numba"), "--body is an option of runs"),
    "status of nothing": (("status", "empty"), "empty was not submitted"),
    "cancel of nothing": (("cancel", "empty"), "empty was not submitted"),
}


@pytest.fixture
def submit_folder(tmp_path):
    """A folder to submit from, with a site `home`."""
    for name in ("empty", "other", "config/anyrank/sites"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "other" / "notes.txt").write_text("mine")
    (tmp_path / "config/anyrank/sites/home.toml").write_text('scheduler = "slurm"\ncores_per_node = 8\n')
    (tmp_path / "sweep.toml").write_text(SWEEP)
    (tmp_path / "lacks.toml").write_text(SWEEP.replace("seed", "sede"))
    (tmp_path / "job.toml").write_text(SWEEP + "ndoes = 2\n")
    node = '[runs.{0}]\nprogram = "pi"\njob = {{ on = "{1}" }}\n'
    (tmp_path / "two.toml").write_text(node.format("A", "slurm") + node.format("B", "pbs"))
    (tmp_path / "strange.toml").write_text('out = "other"\n' + SWEEP)
    (tmp_path / "edited.toml").write_text('out = "edited"\n' + SWEEP.replace("[1, 2", "[5, 2"))
    run = RunFolder(tmp_path / "edited" / "0000")
    run.path.mkdir(parents=True)
    run.create("pi", "pi", Pi(seed=1).parameters, {})
    return tmp_path


@pytest.mark.parametrize("case", BAD)
def test_submit_bad_input_is_refused_and_nothing_is_made(submit_folder, case, refused):
    words, *expected = BAD[case]
    path = dict(NOWHERE)
    if case in ("no archive", "another run"):
        for command in ("sbatch", "squeue", "scancel", "scontrol"):
            (submit_folder / "config" / command).write_text("#!/bin/sh\nexit 1\n")
            (submit_folder / "config" / command).chmod(0o755)
        path["PATH"] = str(submit_folder / "config")
    before = sorted(submit_folder.rglob("*"))
    start_process = run_anyrank if "scheduler" in case else refused  # one more process here, see below
    done = start_process(*words, cwd=submit_folder, env={**path, "XDG_CONFIG_HOME": str(submit_folder / "config")})
    assert done.returncode == 2, done.stderr
    for text in expected:
        assert text in done.stderr.replace("\n         ", " ")
    assert "Traceback" not in done.stderr and sorted(submit_folder.rglob("*")) == before


def test_submit_under_mpiexec_is_refused_once(tmp_path):
    done = mpiexec(2, *anyrank_command(*PI, "--on", "slurm"), cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("run it without mpiexec") == 1 and not list(tmp_path.iterdir())


def test_submit_dry_run_prints_the_script_and_does_nothing(submit_folder, in_process):
    done = run_anyrank(*PI, "--on", "slurm", "--nodes", 3, "--out", "run", "--dry-run", cwd=submit_folder, env=NOWHERE)
    assert done.returncode == 0 and "#SBATCH --nodes=3" in done.stdout and not (submit_folder / "run").exists()
    done = in_process("submit", "sweep.toml", "--dry-run", "--points", "0,2", cwd=submit_folder, env=NOWHERE)
    assert "#SBATCH --array=0,2\n" in done.stdout and not (submit_folder / "runs").exists()


def test_submit_task_outside_the_table_ends_with_status_2(submit_folder, in_process):
    done = in_process("submit", "sweep.toml", "--dry-run", cwd=submit_folder, env=NOWHERE)
    script = done.stdout.partition("\n")[2]
    ran = subprocess.run(
        ["bash", "-c", script],
        env={"PATH": os.environ["PATH"], "SLURM_ARRAY_TASK_ID": "7", "SLURM_JOB_ID": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2 and "task 7 is not in the table" in ran.stderr


class FakeScheduler(Scheduler):
    """A scheduler that returns the job states that a test sets."""

    name = "told"
    commands = ()
    files = {}  # noqa: RUF012
    says: dict[str, JobState] = {}  # noqa: RUF012

    def _submit(self, node, needs):
        raise NotImplementedError

    def task(self, job, position, point):
        raise NotImplementedError

    def job_states(self, jobs):
        return {job: self.says[job.id] for job in jobs if job.id in self.says}

    def cancel(self, jobs, alone=False):
        raise NotImplementedError


ATTEMPT = "1 started 7 n1 2026-11-21T12:00:00Z\n"
STATES = {
    "waiting": ("", JobState(WAITING, "PENDING"), "waiting", "PENDING"),
    "running": (ATTEMPT, JobState(RUNNING, "RUNNING"), "running", "RUNNING"),
    "never": ("", JobState(NEVER, "DependencyNeverSatisfied"), "never", "DependencyNeverSatisfied"),
    "stopped": (ATTEMPT + "1 ended 75 step-000000000009.h5\n", None, "stopped", "its last attempt stopped"),
    "cancelled": (ATTEMPT + "1 ended 75 \n", JobState(ENDED, "CANCELLED"), "stopped", "CANCELLED"),
    "failed": (ATTEMPT + "1 ended 1 \n", JobState(ENDED, "FAILED"), "failed", "ZeroDivisionError on rank 2, step 5"),
    "given up": (ATTEMPT + "1 ended 1 \n1 given up\n", None, "failed", "ZeroDivisionError"),
    "misused": (ATTEMPT + "1 ended 2 \n", None, "failed", "ZeroDivisionError"),
    "killed": (ATTEMPT, JobState(ENDED, "TIMEOUT"), "killed", "TIMEOUT"),
    "gone": (ATTEMPT, None, "killed", "its last attempt did not end by itself"),
    "gone before it began": ("", None, "ended", "its job disappeared and never ran"),
    "requeued": (ATTEMPT + "1 ended 75 \n", JobState(WAITING, "PENDING, BeginTime"), "waiting", "PENDING, BeginTime"),
}


@pytest.mark.parametrize("case", STATES)
def test_status_gives_state_and_reason(tmp_path, monkeypatch, case):
    attempts, output, state, reason = STATES[case]
    run = tmp_path / "run"
    write_ids(run, ["7"])
    write_submission(run, scheduler="told", members={"run": {"folder": ".", "needs": []}})
    (run / "run.toml").touch()
    (run / "job" / "attempts").write_text(attempts)
    failure = {"event": "failed", "error": "ZeroDivisionError", "ranks": "2", "step": 5}
    (run / "events.jsonl").write_text(json.dumps({"event": "start"}) + "\n" + json.dumps(failure) + "\n")
    monkeypatch.setattr(FakeScheduler, "says", {"7": output} if output else {})
    [status] = run_statuses(run)
    assert (status.state, status.jobs, status.attempts) == (state, ("7",), attempts.count("started"))
    assert status.reason.startswith(reason)


def test_status_of_a_farm_shows_its_tasks(tmp_path, monkeypatch, in_process):
    """Not its step, which is a part of the time; the farm itself writes the file."""
    run, table = tmp_path / "run", tmp_path / "t.csv"
    table.write_text("x\n1\n0\n2\n")
    done = run_anyrank("farm", "--command", "test {x} -gt 0", "--table", table, "--out", run)
    assert done.returncode == 1, done.stderr
    write_ids(run, ["7"])
    write_submission(run, scheduler="told", members={"run": {"folder": ".", "needs": []}})
    (run / "job" / "attempts").write_text(ATTEMPT + "1 ended 1 \n")
    monkeypatch.setattr(FakeScheduler, "says", {})
    line = in_process("status", run).stdout
    assert "failed    3 of 3 tasks, 1 failed attempt 1" in line and "step" not in line.partition("attempt")[0]


def test_status_dependents_of_a_failed_run_never_run(tmp_path, monkeypatch):
    needs = {"A": [], "B": ["A"], "C": ["B"], "D": []}
    write_submission(tmp_path, scheduler="told", members={n: {"folder": n, "needs": m} for n, m in needs.items()})
    for name in needs:
        write_ids(tmp_path / name, [name])
    (tmp_path / "A" / "job" / "attempts").write_text(ATTEMPT + "1 ended 1 \n")
    monkeypatch.setattr(FakeScheduler, "says", {"D": JobState(WAITING, "PENDING")})
    a, b, c, d = run_statuses(tmp_path)
    assert [status.state for status in (a, b, c, d)] == ["failed", "never", "never", "waiting"]
    assert b.reason.startswith("needs A, which failed (status 1") and c.reason.startswith("needs B, which never ran")
    assert [status.name for status in run_statuses(tmp_path / "B")] == ["B"]


def test_schedulers_of_one_name_are_refused():
    with pytest.raises(TypeError, match="two schedulers are called told"):
        type("Other", (FakeScheduler,), {})


COMMAND = """#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
case "$0" in
*/sbatch) grep -c ^sbatch "$CALLS"; exit $(($(grep -c ^sbatch "$CALLS") > 3)) ;;
*/squeue) [ ! -e "$CALLS.queued" ] || sed "s/$/|PENDING|None/" "$CALLS.queued" ;;
esac
"""


@pytest.fixture
def slurm_commands(submit_folder):
    """Slurm commands that accept three jobs, and an environment with them; the file `calls` records their calls."""
    folder = submit_folder / "config" / "bin"
    folder.mkdir()
    for name in ("sbatch", "squeue", "scancel", "scontrol"):
        (folder / name).write_text(COMMAND)
        (folder / name).chmod(0o755)
    calls = submit_folder / "config" / "calls"
    path = f"{folder}:{os.environ['PATH']}"
    return calls, {"PATH": path, "CALLS": str(calls), "XDG_CONFIG_HOME": str(submit_folder / "config")}


def test_submit_that_fails_midway_leaves_nothing_queued(submit_folder, slurm_commands, in_process):
    calls, environment = slurm_commands
    node = '[runs.{0}]\nprogram = "pi"\nneeds = [{1}]\n'
    (submit_folder / "dag.toml").write_text(
        '[job]\non = "slurm"\n'
        + "".join(node.format(name, needs) for name, needs in (("A", ""), ("B", '"A"'), ("C", '"B"'), ("D", '"C"')))
    )
    done = in_process("submit", "dag.toml", cwd=submit_folder, env=environment)
    assert done.returncode == 2 and "is not submitted: sbatch failed" in done.stderr
    assert "scancel 1 2 3" in calls.read_text().splitlines()
    assert in_process("status", "runs/dag", cwd=submit_folder, env=environment).returncode == 2


def test_submit_again_uses_the_same_request_and_cancel_holds(submit_folder, slurm_commands, in_process):
    calls, environment = slurm_commands
    site = submit_folder / "config/anyrank/sites/home.toml"
    site.write_text('scheduler = "slurm"\nsetup = ["MARK=1"]\n')
    words = (*PI, "--site", "home", "--nodes", 3, "--directive=--qos=long", "--out", "run")
    assert run_anyrank(*words, cwd=submit_folder, env=environment).returncode == 0
    (calls.with_name("calls.queued")).write_text("1\n")
    again = in_process("submit", "run", cwd=submit_folder, env=environment)
    assert again.returncode == 2 and "is already queued as job 1 (PENDING)" in again.stderr
    assert "cancelled 1" in run_anyrank("cancel", "run", cwd=submit_folder, env=environment).stdout
    (calls.with_name("calls.queued")).unlink()
    [status] = json.loads(run_anyrank("status", "run", "--json", cwd=submit_folder, env=environment).stdout)
    assert status["state"] == "cancelled"
    script = (submit_folder / "run" / "job" / "script.slurm").read_text()
    other = subprocess.run(
        ["bash", "-c", script], env={**os.environ, "SLURM_JOB_ID": "9"}, capture_output=True, text=True
    )
    assert other.returncode == 1 and "anyrank: cancelled" in other.stderr
    site.unlink()
    dry = in_process("submit", submit_folder / "run", "--nodes", 2, "--dry-run", cwd="/", env=environment).stdout
    for line in (f"cd {submit_folder} || exit 2", "MARK=1", "#SBATCH --qos=long", "#SBATCH --nodes=2"):
        assert line in dry.splitlines()
    assert in_process("submit", "run", cwd=submit_folder, env=environment).returncode == 0
    assert not (submit_folder / "run" / "job" / "cancelled").exists()


def test_submit_more_steps_extends_the_run(submit_folder, slurm_commands, in_process):
    _, environment = slurm_commands
    heat = Path(__file__).parents[2] / "examples" / "heat.py"
    run = submit_folder / "run"
    assert run_anyrank("run", heat, "--n", 12, "--steps", 5, "--out", run, "--quiet").returncode == 0
    again = ("submit", run, "--on", "slurm", "--nodes", 2)
    done = in_process(*again, "--steps", 4, "--dry-run", cwd=submit_folder, env=environment)
    assert done.returncode == 2 and "steps = 5, not 4: steps can only grow" in done.stderr
    done = in_process(*again, cwd=submit_folder, env=environment)
    assert done.returncode == 0 and "is finished: nothing to submit" in done.stdout
    assert in_process(*again, "--steps", 9, "--dry-run", cwd=submit_folder, env=environment).returncode == 0
    assert "steps = 5" in (run / "run.toml").read_text() and (run / "summary.json").exists()
    done = in_process(*again, "--steps", 9, cwd=submit_folder, env=environment)
    assert done.returncode == 0 and "job 1 on slurm" in done.stdout, done.stderr
    assert "steps = 9" in (run / "run.toml").read_text() and (run / "summary-5.json").exists()
    assert run_anyrank("resume", run, "--quiet").returncode == 0
    assert json.loads((run / "summary.json").read_text())["steps"] == 9


def test_request_later_layer_replaces_an_equivalent_setting():
    site = Site(pack="/a.tar")
    asked = request(site, {"ranks": 2}, {"image": "/b.sif", "ranks_per_node": 4, "nodes": 2})
    assert (asked.pack, asked.image, asked.size) == ("", "/b.sif", 8)
