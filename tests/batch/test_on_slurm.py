"""Runs on a real Slurm of three nodes; all are submitted at once, and each test looks at its own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from ranks import run_anyrank
from slurm import Slurm, wait_until

GATED = Path(__file__).with_name("gated.py")
STORM = ("--rows", 12, "--columns", 8, "--steps", 200, "--no-picture")
NASTY = "a b'c\"d$(touch hacked)`touch hacked`;touch hacked #\n#SBATCH --uid=0"


class Site:
    """A Slurm and a folder in which runs are submitted."""

    def __init__(self, slurm: Slurm, folder: Path):
        self.slurm, self.folder = slurm, folder
        self.gates: list[Path] = []

    def gate(self, name: str) -> Path:
        """A file that delays runs until it is removed, at the latest at the end."""
        path = self.folder / name
        path.touch()
        self.gates.append(path)
        return path

    def anyrank(self, *words: Any, status: int = 0) -> str:
        done = run_anyrank(*words, env=self.slurm.environment, cwd=self.folder)
        assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stderr if status else done.stdout

    def submit(self, *words: Any) -> str:
        return self.anyrank("submit", *words, "--on", "slurm")

    def storm(self, out: Any, *words: Any, gate: Path | None = None, nodes: int = 1, ranks: int = 2) -> Path:
        """Submit a storm on `nodes` nodes with `ranks` ranks each and return its folder."""
        held = ("--gate", gate) if gate else ()
        where = ("--nodes", nodes, "--ranks-per-node", ranks)
        self.submit(f"{GATED}:Storm", *STORM, *held, *where, *words, "--out", out)
        return self.folder / out

    def job(self, run: Path) -> str:
        return (run / "job" / "id").read_text().split()[0]

    def standing(self, run: Path) -> dict[str, dict[str, Any]]:
        return {status["name"]: status for status in json.loads(self.anyrank("status", run, "--json"))}

    def finished(self, run: Path, timeout: float = 90) -> dict[str, Any]:
        """Wait until the run has finished and return its summary."""

        def done() -> bool:
            file = run / "summary.json"
            return file.exists() and json.loads(file.read_text())["finished"]

        wait_until(done, timeout, lambda: self.log_text(run))
        return json.loads((run / "summary.json").read_text())

    def wait_until_started(self, run: Path, attempt: int = 1, timeout: float = 60) -> None:
        """Wait until an attempt has made a step."""

        def has_steps() -> bool:
            events = run / "events.jsonl"
            return events.exists() and events.read_text().count('"event": "start"') >= attempt

        wait_until(has_steps, timeout, lambda: self.log_text(run))
        time.sleep(1)

    def keep(self, over: Event) -> None:
        """Start requeued jobs at once instead of after two minutes; the third attempt of `walls` is not delayed."""
        while not over.wait(1):
            for job in self.slurm.run("squeue", "--noheader", "--states=PENDING", "--format=%i %r").splitlines():
                if job.endswith(" BeginTime"):
                    self.slurm.hurry(job.split()[0])
            walls = self.folder / "walls"
            if (walls / "job" / "id").exists() and self.slurm.job(self.job(walls))["Restarts"] == "2":
                (self.folder / "walls.gate").unlink(missing_ok=True)

    def log_text(self, run: Path) -> str:
        logs = "\n".join(f"--- {log}\n{log.read_text()}" for log in run.glob("job/*") if log.is_file())
        return f"{logs}\n{self.slurm.job(self.job(run))}"


@pytest.fixture(scope="module")
def site(tmp_path_factory, slurm) -> Iterator[Site]:
    site = Site(slurm, tmp_path_factory.mktemp("site"))
    over = Event()
    keeper = Thread(target=site.keep, args=(over,), daemon=True)
    keeper.start()
    yield site
    over.set()
    keeper.join()
    for gate in site.gates:
        gate.unlink(missing_ok=True)
    slurm.run("scancel", "--user=root")


@pytest.fixture(scope="module")
def storm_digest(tmp_path_factory) -> str:
    """The digest of an uninterrupted run of the storm."""
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert run_anyrank("run", f"{GATED}:Storm", *STORM, "--out", out).returncode == 0
    return str(json.loads((out / "summary.json").read_text())["digest"])


@pytest.fixture(scope="module", autouse=True)
def jobs(site) -> dict[str, Any]:
    """All runs, submitted together; the longest starts first."""
    gates = {name: site.gate(f"{name}.gate") for name in ("walls", "stuck", "cancelled", "limited")}
    runs: dict[str, Any] = {
        "walls": site.storm("walls", "--walltime", "1min", "--warning", "58s", gate=gates["walls"], nodes=2),
        "stuck": site.storm("stuck", "--walltime", "1min", "--warning", "50s", "--stuck", gate=gates["stuck"], ranks=1),
        "cancelled": site.storm("cancelled", "--walltime", "10min", gate=gates["cancelled"]),
        "limited": site.storm("limited", "--max-attempts", 1, gate=gates["limited"], ranks=1),
        "srun": site.storm("srun", "--launcher", "srun --mpi=pmi2 -n {ranks}", nodes=2, ranks=1),
        "chain": site.storm("chain", "--chain", 2, ranks=1),
        "nasty": site.storm(NASTY),
    }
    return {**runs, "gates": gates}


def test_slurm_chain_links_run_one_after_the_other(site, jobs, storm_digest):
    run = jobs["chain"]
    assert site.finished(run)["digest"] == storm_digest
    first, second = (run / "job" / "id").read_text().split()
    ends = [site.slurm.wait_for(job, "COMPLETED") for job in (first, second)]
    assert ends[0]["EndTime"] <= ends[1]["StartTime"]
    assert site.standing(run)["chain"]["attempts"] == 2


def test_slurm_path_with_special_characters_is_quoted(site, jobs, storm_digest):
    assert site.finished(jobs["nasty"])["digest"] == storm_digest
    assert not list(site.folder.rglob("hacked"))
    [status] = site.standing(jobs["nasty"]).values()
    assert status["state"] == "finished" and status["folder"] == str(jobs["nasty"])


def test_slurm_cancel_checkpoints_and_does_not_requeue(site, jobs):
    run, job = jobs["cancelled"], site.job(jobs["cancelled"])
    site.wait_until_started(run)
    assert f"is already queued as job {job} (RUNNING)" in site.anyrank("submit", run, status=2)
    assert f"cancelled {job}" in site.anyrank("cancel", run)
    site.slurm.wait_for(job, "CANCELLED")
    wait_until(lambda: " ended 75" in (run / "job" / "attempts").read_text(), 20, lambda: site.log_text(run))
    status = site.standing(run)["cancelled"]
    assert status["state"] == "cancelled" and status["step"] > 0 and status["reason"].startswith("CANCELLED")
    assert "nothing is queued or running" in site.anyrank("cancel", run)
    jobs["gates"]["cancelled"].unlink()
    site.anyrank("submit", run)
    again = site.job(run)
    assert again != job and "TimeLimit=00:10:00" in site.slurm.run("scontrol", "-o", "show", "job", again)
    assert site.finished(run)["resumed_from"] == status["step"]


def test_slurm_max_attempts_ends_the_run_as_stopped(site, jobs):
    run, job = jobs["limited"], site.job(jobs["limited"])
    site.wait_until_started(run)
    site.slurm.run("scancel", "--signal=USR1", "--batch", job)
    assert site.slurm.wait_for(job, "FAILED")["ExitCode"] == "75:0"
    assert "1 attempts are used up (--max-attempts)" in (run / "job" / f"{job}.log").read_text()
    assert site.standing(run)["limited"]["state"] == "stopped"


SWEEP = """
program = "{program}:Flaky"
out = "sweep"
at_a_time = 8
[parameters]
points = 2e5
batch = 100000
broken = "{broken}"
[grid]
seed = {seeds}
[job]
on = "slurm"
walltime = "5min"
"""


def test_slurm_sweep_resubmits_only_failed_points(site):
    broken = site.gate("broken")
    sweep = site.folder / "sweep.toml"
    sweep.write_text(SWEEP.format(program=GATED, broken=broken, seeds=list(range(20))))
    site.anyrank("submit", "sweep.toml")
    folder = site.folder / "sweep"

    def standings(*states: str) -> dict[str, dict[str, Any]]:
        wait_until(
            lambda: {status["state"] for status in site.standing(folder).values()} <= set(states), 90, site.slurm.log, 1
        )
        return site.standing(folder)

    first = standings("finished", "failed")
    bad = {"0004", "0009", "0017"}
    assert {name for name, status in first.items() if status["state"] == "failed"} == bad
    assert "seed 9 is broken" in first["0009"]["reason"] and len(first) == 20
    broken.unlink()
    output = site.anyrank("submit", "sweep.toml")
    assert "17 of 20 runs not submitted" in output
    second = standings("finished")
    job = second["0004"]["jobs"][0].partition("_")[0]
    assert {name for name, status in second.items() if status["jobs"][0].startswith(f"{job}_")} == bad
    assert {name: status["jobs"][0] for name, status in first.items() if name not in bad} == {
        name: status["jobs"][0] for name, status in second.items() if name not in bad
    }
    assert second["0017"]["jobs"] == [f"{job}_17"] and second["0017"]["attempts"] == 1
    assert "20 of 20 runs not submitted" in site.anyrank("submit", "sweep.toml")


DIAMOND = """
out = "{out}"
[job]
on = "slurm"
walltime = "5min"
[runs.A]
program = "{program}:Flaky"
parameters = {{ points = 200000, seed = 1 }}
[runs.B]
needs = ["A"]
program = "{program}:Flaky"
parameters = {{ points = 200000, seed = {seed}, broken = "{broken}" }}
[runs.C]
needs = ["A"]
program = "{program}:Flaky"
parameters = {{ points = 200000, seed = 2 }}
[runs.D]
needs = ["B", "C"]
command = ["touch", "{out}/D/made"]
"""


def test_slurm_diamond_runs_in_order_and_skips_dependents(site):
    """A run that needs a failed run never starts."""
    broken = site.gate("broken-B")
    for out, seed in (("good", 3), ("bad", 9)):
        (site.folder / f"{out}.toml").write_text(DIAMOND.format(out=out, program=GATED, seed=seed, broken=broken))
        site.anyrank("submit", f"{out}.toml")
    good, bad = site.folder / "good", site.folder / "bad"
    wait_until(lambda: site.standing(good)["D"]["state"] == "finished", 60, lambda: site.anyrank("status", good), 1)
    times = {name: span(good / name) for name in "ABC"}
    assert times["A"][1] < min(times["B"][0], times["C"][0])
    assert (good / "D" / "made").stat().st_mtime > max(times["B"][1], times["C"][1])
    wait_until(lambda: site.standing(bad)["D"]["state"] == "never", 60, lambda: site.anyrank("status", bad), 1)
    wait_until(lambda: site.standing(bad)["C"]["state"] == "finished", 60, lambda: site.anyrank("status", bad), 1)
    ends = site.standing(bad)
    assert {name: status["state"] for name, status in ends.items()} == {
        "A": "finished",
        "B": "failed",
        "C": "finished",
        "D": "never",
    }
    assert site.standing(bad / "B")["B"] | {"needs": ["A"]} == ends["B"], "a run of a study alone"
    assert ends["D"]["reason"].startswith("needs B, which failed") and "seed 9 is broken" in ends["D"]["reason"]
    assert not (bad / "D" / "made").exists() and ends["D"]["attempts"] == 0
    broken.unlink()
    assert "2 of 4 runs not submitted" in site.anyrank("submit", "bad.toml")
    wait_until(lambda: site.standing(bad)["D"]["state"] == "finished", 60, lambda: site.anyrank("status", bad), 1)
    assert (bad / "D" / "made").exists() and site.standing(bad)["C"]["attempts"] == 1


def span(run: Path) -> tuple[float, float]:
    """The start and the end of a run, in seconds since 1970."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    at = {event["event"]: datetime.fromisoformat(event["time"]).timestamp() for event in events}
    return at["start"], at["finished"]


def test_slurm_run_without_time_to_checkpoint_is_requeued(site, jobs):
    job = site.job(jobs["stuck"])
    wait_until(lambda: site.slurm.job(job)["Restarts"] != "0", 90, lambda: site.log_text(jobs["stuck"]), 0.3)
    assert " ended " not in (jobs["stuck"] / "job" / "attempts").read_text()
    site.anyrank("cancel", jobs["stuck"])


def test_slurm_run_over_its_wall_time_twice_has_the_same_digest(site, jobs, storm_digest):
    run, job = jobs["walls"], site.job(jobs["walls"])
    summary = site.finished(run)
    assert summary["digest"] == storm_digest and summary["ranks"] == 4 and summary["resumed_from"] > 0
    assert site.slurm.wait_for(job, "COMPLETED")["Restarts"] == "2"
    stops = [line for line in (run / "events.jsonl").read_text().splitlines() if '"event": "stopped"' in line]
    assert len(stops) == 2
    assert site.standing(run)["walls"] | {"folder": ""} == {
        "name": "walls",
        "folder": "",
        "state": "finished",
        "step": 200,
        "attempts": 3,
        "jobs": [job],
        "reason": "",
        "needs": [],
        "progress": "",
    }
    assert "walls is finished" in site.anyrank("submit", run, status=0)


def test_slurm_srun_starts_the_ranks(site, jobs, storm_digest):
    assert site.finished(jobs["srun"])["digest"] == storm_digest


def test_slurm_run_continues_without_a_failed_node(site, storm_digest):
    gate = site.gate("lost.gate")
    run = site.storm("lost", gate=gate, nodes=2, ranks=1)
    job = site.job(run)
    site.wait_until_started(run)
    nodes = site.slurm.job(job)["NodeList"]
    node = nodes.replace("n[", "n")[:2]
    site.slurm.node(node, "down")
    site.wait_until_started(run, 2)
    assert node not in site.slurm.run("scontrol", "show", "hostnames", site.slurm.job(job)["NodeList"]).split()
    site.slurm.node(node, "resume")
    gate.unlink()
    summary = site.finished(run)
    assert summary["digest"] == storm_digest and summary["resumed_from"] > 0
    assert site.standing(run)["lost"]["attempts"] == 2


def test_slurm_preempted_run_continues(site, storm_digest):
    gate = site.gate("preempted.gate")
    run = site.storm("preempted", "--partition", "low", gate=gate)
    site.wait_until_started(run)
    words = ("--nodes=3", "--exclusive", "--partition=high", "--output=/dev/null", "--wrap=sleep 1")
    high = site.slurm.run("sbatch", "--parsable", *words)
    site.slurm.wait_for(high, "COMPLETED", timeout=60)
    gate.unlink()
    assert site.finished(run)["digest"] == storm_digest


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--partition", "none"), "sbatch failed: sbatch: error: invalid partition specified: none"),
        (("--ranks-per-node", 5), "sbatch failed"),
    ],
)
def test_slurm_refused_job_shows_slurms_words_and_queues_nothing(site, words, message):
    out = site.folder / f"refused{words[1]}"
    output = site.anyrank("submit", "pi", "--on", "slurm", *words, "--out", out, status=2)
    assert message in output and "submit it again" in output
    assert not (out / "job" / "id").exists()
    assert "was not submitted" in site.anyrank("status", out, status=2)
