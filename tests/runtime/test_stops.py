"""Stops: for every request the run checkpoints at a step that all ranks agree on, ends with 75, and can be resumed."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from ranks import anyrank_command, mpiexec_path, processes_of, run_anyrank, start_process

from anyrank.runtime.stops import scheduler_limit

CRASH = Path(__file__).with_name("crash.py")
ENDLESS = ("run", CRASH, "--how", "no", "--pause", 0.005, "--steps", 400)


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def wait_for(condition, patience: float = 30) -> None:
    give_up = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < give_up, "what the test waits for did not come"
        time.sleep(0.01)


def makes_steps(folder: Path):
    """Whether the run makes steps: its start is in its events, and its first checkpoint exists."""
    return lambda: any((folder / "checkpoints").glob("step-*.h5"))


def mpiexec_of(process) -> int:
    """The process id of the mpiexec that runs the ranks."""
    result = [pid for pid, words in processes_of(process).items() if words and Path(words[0]).name == "mpiexec"]
    return result[0]


@pytest.mark.parametrize(
    ("target", "number", "resume"),
    [
        ("mpiexec", signal.SIGTERM, True),
        ("mpiexec", signal.SIGUSR1, False),
        ("mpiexec", signal.SIGQUIT, False),
        ("anyrank", signal.SIGTERM, False),
        ("anyrank", signal.SIGINT, True),
        ("anyrank", signal.SIGUSR1, False),
    ],
)
def test_stop_by_signal_has_status_75_and_resume_continues(tmp_path, number, target, resume):
    out = tmp_path / "run"
    with start_process(*anyrank_command(*ENDLESS, "--out", out, "--checkpoint-every", 10, ranks=2)) as process:
        wait_for(makes_steps(out))
        pid = process.pid if target == "anyrank" else mpiexec_of(process)
        os.kill(pid, number)
        assert process.wait(30) == 75
    stopped = summary(out)
    assert not stopped["finished"] and stopped["stopped_by"] == number.name and 0 < stopped["steps"] < 400
    assert (out / "checkpoints" / f"step-{stopped['steps']:012d}.h5").exists()
    if not resume:
        return
    resumed = run_anyrank("resume", out, "--json", ranks=3)
    assert resumed.returncode == 0, resumed.stderr
    final = json.loads(resumed.stdout.splitlines()[-1])
    assert final["finished"] and final["resumed_from"] == stopped["steps"] and final["ranks"] == 3
    assert json.loads((out / "result.json").read_text()) == {"count": 400}


def test_stop_by_signal_to_the_users_own_mpiexec(tmp_path):
    out = tmp_path / "run"
    command = [mpiexec_path(), "-n", 2, *anyrank_command(*ENDLESS, "--out", out, "--checkpoint-every", 10)]
    with start_process(*command) as process:
        wait_for(makes_steps(out))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 75
    assert summary(out)["stopped_by"] == "SIGTERM"


def test_stop_file_stops_the_run_and_is_removed(tmp_path):
    out = tmp_path / "run"
    with start_process(*anyrank_command(*ENDLESS, "--out", out, "--checkpoint-every", 10, ranks=2)) as process:
        wait_for(makes_steps(out))
        (out / "stop").touch()
        assert process.wait(30) == 75
    assert summary(out)["stopped_by"] == "the stop file" and not (out / "stop").exists()


@pytest.mark.parametrize("ranks", [None, 2])
def test_walltime_stops_the_run_in_time(tmp_path, ranks):
    out = tmp_path / "run"
    done = run_anyrank(*ENDLESS, "--out", out, "--walltime", "1s", ranks=ranks)
    assert done.returncode == 75, done.stderr
    assert summary(out)["stopped_by"] == "the wall-time limit" and summary(out)["seconds"] < 1
    assert "anyrank resume" in done.stdout


def test_scheduler_limit_reads_the_end_from_our_job_scripts():
    assert scheduler_limit({"ANYRANK_JOB_END": "110", "SLURM_JOB_END_TIME": "120"}, 100.5) == 9.5
    assert scheduler_limit({"ANYRANK_JOB_END": ""}, 100.5) is None


def test_scheduler_limit_stops_the_run(tmp_path):
    out = tmp_path / "run"
    environment = {"SLURM_JOB_END_TIME": str(int(time.time()) + 2)}
    assert run_anyrank(*ENDLESS, "--out", out, ranks=2, env=environment).returncode == 75
    assert summary(out)["stopped_by"] == "the wall-time limit"


def test_stop_many_times_gives_the_digest_of_an_unbroken_run(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    program = ("run", "weather", "--rows", 33, "--columns", 20, "--steps", 3000, "--no-picture")
    assert run_anyrank(*program, "--out", whole).returncode == 0
    with start_process(*anyrank_command(*program, "--out", broken, "--checkpoint-every", "50", ranks=2)) as process:
        wait_for(makes_steps(broken))
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
    assert code == 75
    code = run_anyrank("resume", broken, "--walltime", "0.2s", ranks=4).returncode
    assert code in (0, 75)
    assert run_anyrank("resume", broken, ranks=1).returncode == 0
    assert summary(broken)["digest"] == summary(whole)["digest"]
    assert summary(broken)["digests"] == summary(whole)["digests"]


def test_stop_at_stops_at_that_step_with_digests_of_every_step(tmp_path):
    program = ("run", "weather", "--rows", 12, "--columns", 9, "--steps", 30, "--no-picture", "--digests")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run_anyrank(*program, "--out", whole).returncode == 0
    for verb, step in ((program, 0), (("resume", broken, "--digests"), 11)):
        out = ("--out", broken) if verb is program else ()
        assert run_anyrank(*verb, *out, "--stop-at", step, ranks=2).returncode == 75
        assert summary(broken)["stopped_by"] == "--stop-at" and summary(broken)["steps"] == step
    assert run_anyrank("resume", broken, "--digests", "--stop-at", 500).returncode == 0, "it is over before"
    traces = [[json.loads(line) for line in (out / "digests.jsonl").open()] for out in (whole, broken)]
    assert [line["step"] for line in traces[0]] == list(range(31))
    assert [line["step"] for line in traces[1]] == [0, *range(12), *range(11, 31)]
    by_step = {line["step"]: line["digests"] for line in traces[0]}
    assert all(line["digests"] == by_step[line["step"]] for line in traces[1])
    assert by_step[30] == summary(whole)["digests"]


def test_resume_finished_run_says_so_and_changes_nothing(tmp_path):
    out = tmp_path / "run"
    run = ("run", CRASH, "--how", "no", "--steps", 20, "--out", out)
    assert run_anyrank(*run, ranks=2).returncode == 0
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in out.rglob("*")}
    for again in (("resume", out), run):
        done = run_anyrank(*again, ranks=2)
        assert done.returncode == 0 and "is finished: 20 steps, digest" in done.stdout
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in out.rglob("*")} == before
