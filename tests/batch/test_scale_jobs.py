"""Scaling studies in jobs: one job per round, one after the other, and a report; on a real Slurm of three nodes."""

import json
from pathlib import Path

import pytest
from ranks import run_anyrank
from slurm import wait_until

SERIAL = Path(__file__).parents[1] / "scaling" / "serial.py"
WORDS = ("strong", SERIAL, "--milliseconds", 2, "--steps", 4)


@pytest.mark.parametrize(
    ("on", "starting"),
    [
        ("slurm", "export SLURM_WHOLE=1"),
        ("pbs", '--hosts "$(sort "$PBS_NODEFILE"'),
        ("htcondor", "--round"),  # one machine, which needs neither
    ],
)
def test_scale_jobs_rounds_run_in_order_and_report_comes_last(tmp_path, in_process, on, starting):
    words = ("--ranks", "1,2", "--repeat", 2, "--ranks-per-node", 2, "--on", on, "--dry-run", "--predict", 64)
    done = in_process("scale", *WORDS, *words, "--out", tmp_path / "s")
    assert done.returncode == 0, done.stderr
    scripts = [text for text in done.stdout.split("# " + str(tmp_path)) if "anyrank scale" in text]
    assert len(scripts) == 3
    for number, text in enumerate(scripts[:2], 1):
        assert (
            f"anyrank scale resume {tmp_path}/s --timeout 1h --with-network --round {number}" in text
            and starting in text
        )
    assert f"anyrank scale report {tmp_path}/s --predict 64" in scripts[2] and starting not in scripts[2]
    assert not (tmp_path / "s").exists()


def test_scale_jobs_do_not_use_the_sites_launcher(tmp_path, in_process):
    """`anyrank scale` starts the ranks itself."""
    site = tmp_path / "config/anyrank/sites/home.toml"
    site.parent.mkdir(parents=True)
    site.write_text('scheduler = "slurm"\nlauncher = "srun --mpi=pmi2"\n')
    words = ("--repeat", 1, "--nodes", 2, "--site", "home", "--on", "slurm", "--dry-run", "--out", tmp_path / "s")
    done = in_process("scale", *WORDS, *words, env={"XDG_CONFIG_HOME": str(tmp_path / "config")})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("export SLURM_WHOLE=1") == 1 and "pmi2" not in done.stdout


@pytest.mark.slow
def test_scale_jobs_study_on_three_nodes_gives_a_report(slurm, tmp_path):
    out = tmp_path / "s"
    words = ("--ranks", "1,2,3", "--repeat", 2, "--on", "slurm", "--nodes", 3, "--out", out)
    done = run_anyrank("scale", *WORDS, *words, env=slurm.environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = out / "scaling.json"

    def log_text() -> str:
        logs = [f"{path}:\n{path.read_text()}" for path in sorted(out.glob("jobs/*/job/*.log"))]
        status = run_anyrank("status", out / "jobs", env=slurm.environment, cwd=tmp_path)
        return "\n".join([status.stdout, *logs])

    wait_until(lambda: report.exists() and (out / "scaling.svg").exists(), 120, log_text)
    samples = json.loads(report.read_text())["study"]["samples"]
    assert sorted((sample["round"], sample["ranks"]) for sample in samples) == [
        (r, p) for r in (1, 2) for p in (1, 2, 3)
    ]
    names = [path.name for path in (out / "jobs").iterdir()]
    assert {"round-001", "round-002", "report"} <= set(names)
    # Only the job of the report is submitted again, since that job may still be about to end.
    again = run_anyrank("scale", "resume", out, env=slurm.environment, cwd=tmp_path)
    assert again.returncode == 0 and "round" not in again.stdout, again.stderr
