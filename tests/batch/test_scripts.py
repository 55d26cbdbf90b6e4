"""Job scripts: golden files of every case on every scheduler, and quoting of all values that a user gives.

After an intended change: ANYRANK_GOLDEN=write pytest tests/batch/test_scripts.py, and read the diff.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from anyrank.batch.request import request
from anyrank.batch.site import Site
from anyrank.batch.study import StudyRun
from anyrank.batch.submission import Submission
from anyrank.errors import UsageError

GOLDEN = Path(__file__).parent / "golden"
HOME = Path("/home/ada")
SITE = Site(
    partition="main",
    account="p123",
    cores_per_node=8,
    gpus_per_node=2,
    modules=["gcc/12", "mpich/4.2"],
    setup=["source /apps/setup.sh"],
    environment={"FI_PROVIDER": "cxi", "GREETING": "it's $HOME"},
    scratch="/local",
)


def member(folder: Path, needs=(), source="weather", options=None, command=()) -> StudyRun:
    return StudyRun(
        folder.name, folder, None if command else source, {}, options or {}, {}, tuple(needs), tuple(command)
    )


def submission(on: str, kind="run", members=(), site=None, folder=HOME / "runs/storm", cwd=HOME, **asked) -> Submission:
    site = site or Site()
    members = members or [member(folder)]
    requests = {run.name: request(site, {"on": on, **asked}) for run in members}
    return Submission(kind, folder, members, requests, site, cwd)


def points(study: Path) -> list[StudyRun]:
    return [member(study / f"{point:04}", source="pi") for point in (0, 1, 2, 7)]


def diamond(study: Path) -> list[StudyRun]:
    a, b, c = (member(study / name, needs) for name, needs in (("A", ()), ("B", ["A"]), ("C", ["A"])))
    return [a, b, c, member(study / "report", ["B", "C"], command=["python", "my report.py"])]


STUDY = HOME / "runs/study"
CASES = {
    "run": {},
    "site": {
        "site": SITE,
        "nodes": 2,
        "threads": 2,
        "gpus_per_node": 2,
        "memory": "16G",
        "walltime": "12h",
        "warning": "5min",
        "max_attempts": 7,
        "members": [member(HOME / "runs/storm", options={"body": "cupy", "max_restarts": 2, "check": True})],
    },
    "array": {"kind": "sweep", "folder": STUDY, "members": points(STUDY), "at_a_time": 2},
    "one-point": {"kind": "sweep", "folder": STUDY, "members": points(STUDY)[3:]},
    "chain": {"chain": 3},
    "dag": {"kind": "dag", "folder": STUDY, "members": diamond(STUDY)},
    "pack": {"pack": "/shared/my env.tar.gz", "members": [member(HOME / "runs/storm", source="/home/ada/my heat.py")]},
    "image": {"image": "/shared/any rank.sif", "gpus_per_node": 1},
    "launcher": {"launcher": "mpiexec -n {ranks} -ppn {ranks_per_node}", "ranks_per_node": 4},
}
ALL = [(on, case) for on in ("slurm", "pbs", "htcondor") for case in CASES]


def submission_of(on: str, case: str) -> Submission:
    asked = dict(CASES[case])
    if on == "htcondor":
        asked.pop("nodes", None)
        asked["site"] = SITE.model_copy(update={"partition": ""}) if "site" in asked else Site()
    return submission(on, **asked)


@pytest.mark.parametrize(("on", "case"), ALL)
def test_scripts_match_the_golden_files(on, case):
    scripts = submission_of(on, case).scripts().items()
    text = "".join(f"==> {name}\n{script}" for name, script in scripts).replace(
        str(Path(sys.executable).parent), "/opt/bin"
    )
    golden = GOLDEN / f"{on}-{case}.txt"
    if os.environ.get("ANYRANK_GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize(("on", "case"), ALL)
def test_scripts_are_valid_for_bash_and_condor(tmp_path, monkeypatch, on, case):
    if on == "htcondor":
        from batch.condor import check_dag, check_submit  # skips the test without HTCondor's bindings
    for name, script in submission_of(on, case).scripts().items():
        if name.endswith(".sub"):
            check_submit(script)
        elif name.endswith(".dag"):
            check_dag(script, tmp_path, monkeypatch)
        else:
            done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
            assert done.returncode == 0 and not done.stderr, done.stderr


NASTY = "a b'c\"d$(touch hacked)`touch hacked`;touch hacked #\n#SBATCH --uid=0\n#PBS -l hacked\\ &"


@pytest.mark.parametrize("on", ["slurm", "pbs", "htcondor"])
def test_scripts_values_with_special_characters_are_quoted(tmp_path, on):
    """Bash runs the script with a `python` that records its arguments: each arrives complete."""
    odd = tmp_path / NASTY.replace("/", "").replace("\\", "")
    job = odd / "run" / "job"
    job.mkdir(parents=True)
    python = odd / "python"
    python.write_text('#!/bin/bash\nprintf "%s\\0" "$PWD" "$GREETING" "$@" >"$SAID"\n')
    python.chmod(0o755)
    submitted = submission(
        on,
        site=Site(environment={"GREETING": NASTY}),
        folder=odd / "run",
        cwd=odd,
        members=[member(odd / "run", source=str(odd / "my heat.py"), options={"mtbf": NASTY})],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(python))
        script = next(text for name, text in submitted.scripts().items() if name.endswith(("slurm", "pbs", "sh")))
    (tmp_path / "nodes").write_text("n1\nn1\n")
    environment = {"PATH": os.environ["PATH"], "SAID": str(tmp_path / "said"), "PBS_NODEFILE": str(tmp_path / "nodes")}
    subprocess.run(["bash", "-c", script, "script", "7.0"], cwd=tmp_path, env=environment, check=False, timeout=30)
    output = (tmp_path / "said").read_text().split("\0")
    assert output[:2] == [str(odd), NASTY]
    assert {str(odd / "run"), NASTY} <= set(output[2:])
    assert not [path for path in tmp_path.rglob("*") if path.name == "hacked"]
    directives = [line for line in script.splitlines() if re.match(r"#(SBATCH|PBS)", line)]
    assert not [line for line in directives if "hacked" in line or "uid" in line], directives


def test_slurm_script_with_percent_in_the_path_is_refused():
    with pytest.raises(UsageError, match="Slurm cannot write"):
        submission("slurm", folder=HOME / "100%", members=[member(HOME / "100%")]).scripts()


def test_htcondor_script_of_two_machines_is_refused():
    with pytest.raises(UsageError, match="--nodes 2: a job of HTCondor runs on one machine"):
        submission("htcondor", nodes=2).scripts()


def test_template_of_the_user_overrides_and_extends_ours(tmp_path, monkeypatch):
    (tmp_path / "anyrank" / "jobs").mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    mine = tmp_path / "anyrank" / "jobs" / "slurm.sh.j2"
    mine.write_text(
        '{% extends "anyrank/slurm.sh.j2" %}\n'
        "{% block environment %}{{ super() }}echo mine {{ job.name }}\n{% endblock %}"
    )
    [script] = submission("slurm").scripts().values()
    assert "echo mine storm\n" in script and "export OMP_NUM_THREADS=1" in script
    site = tmp_path / "site"
    site.mkdir()
    (site / "slurm.sh.j2").write_text("the site's {{ folder }}\n")
    [script] = submission("slurm", site=Site(templates=str(site))).scripts().values()
    assert script == "the site's /home/ada/runs/storm\n"


@pytest.mark.parametrize(
    ("text", "message"), [("{% if %}", "Expected an expression"), ("{{ nothing }}", "'nothing' is")]
)
def test_template_with_an_error_is_refused_with_its_message(tmp_path, text, message):
    (tmp_path / "slurm.sh.j2").write_text(text)
    with pytest.raises(UsageError, match="does not work") as refusal:
        submission("slurm", site=Site(templates=str(tmp_path))).scripts()
    assert message in str(refusal.value)


def test_script_of_an_image_escapes_colons_for_apptainer():
    """Apptainer's --bind takes the text after a colon for the path in the container."""
    submitted = submission("slurm", folder=HOME / "at 12:00/a,b", cwd=HOME / "at 12:00", image="/shared/any.sif")
    (text,) = submitted.scripts().values()
    assert r"--bind '/home/ada/at 12\:00' --bind '/home/ada/at 12\:00/a\,b' /shared/any.sif" in text
    assert "cd '/home/ada/at 12:00' || exit 2" in text and "\nrun='/home/ada/at 12:00/a,b'\n" in text
