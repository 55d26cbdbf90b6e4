"""The job scripts for users (jobs/examples) run as they are, apart from the lines that they ask the user to change."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from batch.cluster import Cluster, Condor, Pbs, run_fake
from ranks import processes_of, run_anyrank
from slurm import wait_until

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "jobs" / "examples"
BIN = Path(sys.executable).parent
#: Replacements: smaller sizes, since the originals take days, and the folder of anyrank.
SMALLER = {
    **{"2048": "24", "100000": "8000", "--ntasks-per-node=4": "--ntasks-per-node=1", "-n 8": "-n 2"},
    **{"ncpus=4:mpiprocs=4": "ncpus=1:mpiprocs=1", "source .venv/bin/activate": f"export PATH={BIN}:$PATH"},
    **{"executable = .venv/bin": f"executable = {BIN}", "request_memory = 4G\n": ""},
}


def example(name: str, folder: Path, **changes: str) -> str:
    """Write an example with the smaller sizes into a folder and return its text."""
    text = (EXAMPLES / name).read_text()
    for old, new in (*SMALLER.items(), *changes.items()):
        text = text.replace(old, new)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    return text


@pytest.fixture(scope="module")
def storm_digest(tmp_path_factory) -> str:
    """The digest of the storm that all examples compute."""
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    words = ("--rows", 24, "--columns", 24, "--initial", "shear", "--steps", 8000, "--no-picture")
    assert run_anyrank("run", "weather", *words, "--out", out).returncode == 0
    return str(json.loads((out / "summary.json").read_text())["digest"])


def check_resumed(cluster: Cluster, storm_digest: str) -> None:
    """The run was stopped once, resumed, and has the digest of an uninterrupted run."""
    run = cluster.folder / "runs" / "storm"
    summary = cluster.summary(run)
    assert summary["digest"] == storm_digest and summary["resumed_from"] > 0
    assert (run / "events.jsonl").read_text().count('"event": "stopped"') == 1


def test_example_slurm_stopped_run_is_requeued_and_finishes(tmp_path, slurm, storm_digest):
    cluster = Cluster("slurm", tmp_path, slurm.environment)
    example("weather.slurm", tmp_path)
    job = cluster.run("sbatch", "--parsable", "weather.slurm")
    cluster.wait_until_started(tmp_path / "runs" / "storm")
    cluster.run("scancel", "--signal=USR1", "--batch", job)
    wait_until(lambda: slurm.job(job)["Reason"] == "BeginTime", 30, slurm.log)
    slurm.hurry(job)
    check_resumed(cluster, storm_digest)
    job = slurm.wait_for(job, "COMPLETED")
    assert (job["TimeLimit"], job["NumNodes"], job["Restarts"]) == ("01:00:00", "2", "1")


@pytest.mark.parametrize("shell", ["PBS's", "its own"])
def test_example_pbs_stopped_run_is_resumed_and_finishes(tmp_path, storm_digest, shell):
    """With PBS's shell no signal may reach all processes of the job, because the job's first shell would end."""
    change = {"##PBS -S /full/path/of": f"#PBS -S {tmp_path}"} if shell == "its own" else {}
    with run_fake(Pbs, tmp_path) as pbs:
        example("weather.pbs", tmp_path, **change)
        job = pbs.run("qsub", "weather.pbs")
        pbs.wait_until_started(tmp_path / "runs" / "storm")
        if shell == "PBS's":
            [run] = [pid for pid, words in processes_of(pbs.keeper).items() if words[1:3] == [f"{BIN}/anyrank", "run"]]
            os.kill(run, signal.SIGUSR1)
        else:
            pbs.run("qsig", "-s", "SIGUSR1", job)
        check_resumed(pbs, storm_digest)


def test_example_htcondor_evicted_run_restarts_and_finishes(tmp_path, storm_digest):
    condor_module = pytest.importorskip("batch.condor")
    with run_fake(Condor, tmp_path) as condor:
        submit = condor_module.check_submit(example("weather.sub", tmp_path))
        assert [condor_module.leaves_queue(submit, code) for code in (0, 1, 75, None)] == [True, True, False, True]
        assert condor.run("condor_submit", "weather.sub") == "1 job(s) submitted to cluster 1."
        condor.wait_until_started(tmp_path / "runs" / "storm")
        condor.run("condor_vacate_job", "1.0")
        check_resumed(condor, storm_digest)


def test_example_htcondor_dag_runs_all_nodes(tmp_path, monkeypatch):
    condor_module = pytest.importorskip("batch.condor")
    with run_fake(Condor, tmp_path) as condor:
        example("weather.sub", tmp_path, **{"--steps 8000": "--steps 20"})
        dag = example("weather.dag", tmp_path, **{"256": "12", "512": "14", "1024": "16"})
        needs = condor_module.check_dag(dag, tmp_path, monkeypatch)
        assert needs == {"coarse": set(), "left": {"coarse"}, "right": {"coarse"}, "fine": {"left", "right"}}
        condor.run("condor_submit_dag", "weather.dag")
        condor.summary(tmp_path / "runs" / "fine")
    logs = {name: (tmp_path / "runs" / name / "events.jsonl").read_text().splitlines() for name in needs}
    times = {name: [json.loads(line)["time"] for line in lines] for name, lines in logs.items()}
    assert all(times[need][-1] < times[name][0] for name in needs for need in needs[name])
    assert "rows = 24" in (tmp_path / "runs" / "fine" / "run.toml").read_text()
