"""Branches: other parameters, another program, another resolution, from the State of a run."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from ranks import mpiexec, run_anyrank

from anyrank.batch.study import read_study
from anyrank.errors import UsageError
from anyrank.runtime.folder import RunFolder
from anyrank.runtime.options import Options
from anyrank.runtime.programs import load
from anyrank.runtime.python import Run, run
from anyrank.storage.checkpoint_folder import path_of
from anyrank.toml import read_toml

FILE = Path(__file__).with_name("branching.py")


def program(name: str, **values):
    return load(f"{FILE}:{name}")(**values)


@pytest.fixture(scope="module")
def origin(tmp_path_factory) -> Path:
    """A run of the plate with checkpoints of the steps 2, 4, 6 and 8. Tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("origin") / "p1"
    run(program("Plate"), out=folder, checkpoint_every=2, keep=4)
    return folder


def words(out, *more, source="Plate"):
    return "run", f"{FILE}:{source}", *more, "--out", out


def lineage_of(out: Path) -> list[dict]:
    """The lineage, which must be the same in the summary, in run.toml and in the newest checkpoint."""
    summary = json.loads((out / "summary.json").read_text())
    with h5py.File(path_of(out / "checkpoints", summary["steps"]), locking=False) as file:
        in_file = json.loads(file.attrs["lineage"])
    assert summary["lineage"] == in_file == read_toml(out / "run.toml")["lineage"]
    return in_file


def test_branch_with_the_same_parameters_goes_on_as_the_run(origin, tmp_path):
    """The random numbers and the constants are those of the run, too."""
    branch = run(program("Plate"), out=tmp_path / "b", branch_from=f"{origin}@4")
    assert branch.finished and branch.digest == Run(origin).digest and branch.summary["resumed_from"] is None


def test_branch_has_one_digest_on_any_ranks_and_resumes(origin, tmp_path):
    digests = set()
    for ranks in (1, 2, 3):
        done = run_anyrank(*words(tmp_path / f"b{ranks}", "--from", f"{origin}@4", "--nu", 0.2), ranks=ranks)
        assert done.returncode == 0, done.stderr
        digests.add(Run(tmp_path / f"b{ranks}").digest)
    assert "changed: nu 0.1 → 0.2" in done.stderr and "as in that run: n = 12, seed = 1, steps = 8" in done.stderr
    stopped = words(tmp_path / "s", "--from", f"{origin}@4", "--nu", 0.2, "--stop-at", 6)
    assert run_anyrank(*stopped, ranks=2).returncode == 75
    done = run_anyrank("resume", tmp_path / "s", ranks=3)
    assert done.returncode == 0, done.stderr
    digests.add(Run(tmp_path / "s").digest)
    assert len(digests) == 1 and digests != {Run(origin).digest}
    (entry,) = lineage_of(tmp_path / "s")
    assert entry["run"] == str(origin) and entry["step"] == 4 and entry["program"] == "plate"
    assert entry["changed"] == {"nu": {"from": 0.1, "to": 0.2}} and entry["regrid"] == "" and entry["missing"] == []
    with h5py.File(path_of(origin / "checkpoints", 4), locking=False) as file:
        assert entry["digest"] == file.attrs["digest"]


def test_branch_under_mpiexec_and_from_python_are_alike(origin, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(FILE.parent)!r})\nfrom branching import Plate\nimport anyrank\n"
        f"anyrank.run(Plate(nu=0.2), out=sys.argv[1], branch_from={str(origin)!r} + '@4')\n"
    )
    assert mpiexec(2, sys.executable, script, tmp_path / "a").returncode == 0
    done = mpiexec(2, sys.executable, "-m", "anyrank", *words(tmp_path / "b", "--from", f"{origin}@4", "--nu", 0.2))
    assert done.returncode == 0, done.stderr
    assert Run(tmp_path / "a").digest == Run(tmp_path / "b").digest and lineage_of(tmp_path / "a")
    mine = run(f"{FILE}:Plate", ranks=2, out=tmp_path / "c", branch_from=f"{origin}@4")
    assert mine.digest == Run(origin).digest, "all parameters are inherited"


def test_branch_keeps_step_and_inherits_parameters(tmp_path):
    run(program("Plate", n=9, nu=0.05, steps=4), out=tmp_path / "a")
    branch = run(program("Plate", steps=6), out=tmp_path / "b", branch_from=str(tmp_path / "a"))
    assert branch.summary["parameters"] == {"n": 9, "nu": 0.05, "seed": 1, "steps": 6}
    assert branch.result["heated"] == 6 and branch.summary["steps"] == 6
    assert branch.digest == run(program("Plate", n=9, nu=0.05, steps=6), out=tmp_path / "c").digest


def test_branch_of_a_branch_has_both_in_its_lineage(origin, tmp_path):
    run(program("Plate", nu=0.2), out=tmp_path / "b", branch_from=f"{origin}@4")
    last = run(program("Plate", seed=5, steps=10), out=tmp_path / "c", branch_from=str(tmp_path / "b"))
    first, second = lineage_of(tmp_path / "c")
    assert (first["run"], first["step"]) == (str(origin), 4) and second["run"] == str(tmp_path / "b")
    assert second["changed"] == {"seed": {"from": 1, "to": 5}, "steps": {"from": 8, "to": 10}}
    assert last.summary["parameters"]["nu"] == 0.2


def test_branch_in_its_folder_resumes_and_another_is_refused(origin, tmp_path):
    again = words(tmp_path / "b", "--from", f"{origin}@4", "--nu", 0.2)
    assert run_anyrank(*again, "--stop-at", 6).returncode == 75
    for other, message in (
        (("--from", f"{origin}@2", "--nu", 0.2), f"holds a branch of {origin}@4, and --from {origin}@2 asks"),
        (("--from", tmp_path / "b", "--nu", 0.2), "asks for another run"),
        (("--nu", 0.2), f"holds a branch of {origin}@4, and --from is not given"),
        (("--from", f"{origin}@4", "--nu", 0.2, "--regrid", "linear"), "--regrid linear asks for another run"),
        (("--from", f"{origin}@4", "--nu", 0.3), "nu = 0.2, not 0.3"),
    ):
        done = run_anyrank(*words(tmp_path / "b", *other))
        assert done.returncode == 2 and message in " ".join(done.stderr.split()), done.stderr
    assert run_anyrank(*again).returncode == 0 and Run(tmp_path / "b").summary["resumed_from"] == 6
    done = run_anyrank(*words(origin, "--from", f"{origin}@4"))
    assert done.returncode == 2 and "holds a run that began with setup, and --from" in done.stderr
    assert run_anyrank("resume", tmp_path / "b", "--from", origin).returncode == 2


def test_branch_with_a_changed_lineage_is_refused_at_resume(origin, tmp_path):
    run(program("Plate"), out=tmp_path / "b", branch_from=f"{origin}@4", stop_at=6)
    text = (tmp_path / "b/run.toml").read_text()
    (tmp_path / "b/run.toml").write_text(text.replace("step = 4", "step = 2"))
    done = run_anyrank("resume", tmp_path / "b", ranks=2)
    assert done.returncode == 2, done.stderr
    assert f"is a checkpoint of a branch of {origin}@4, and the run is a branch of {origin}@2" in done.stderr
    (tmp_path / "b/run.toml").unlink()
    assert run_anyrank("resume", tmp_path / "b", "--program", f"{FILE}:Plate").returncode == 0
    assert Run(tmp_path / "b").digest == Run(origin).digest and lineage_of(tmp_path / "b")


def test_branch_without_a_checkpoint_yet_begins_at_the_same_step(origin, tmp_path):
    """The newest checkpoint of the run has changed since the branch began."""
    shutil.copytree(origin, tmp_path / "a")
    path_of(tmp_path / "a/checkpoints", 8).unlink()
    run(program("Plate"), out=tmp_path / "b", branch_from=str(tmp_path / "a"), stop_at=7)
    shutil.rmtree(tmp_path / "b/checkpoints")
    shutil.copy(path_of(origin / "checkpoints", 8), tmp_path / "a/checkpoints")
    again = run(program("Plate"), out=tmp_path / "b", branch_from=str(tmp_path / "a"))
    assert again.digest == Run(origin).digest and lineage_of(tmp_path / "b")[0]["step"] == 6
    shutil.rmtree(tmp_path / "b/checkpoints")
    (tmp_path / "b/summary.json").unlink()
    other = run(program("Plate", nu=0.3), out=tmp_path / "other", checkpoint_every=6, keep=9)
    shutil.copy(path_of(other.path / "checkpoints", 6), path_of(tmp_path / "a/checkpoints", 6))
    with pytest.raises(UsageError, match=r"when this branch began: it belongs to another run"):
        run(program("Plate"), out=tmp_path / "b", branch_from=str(tmp_path / "a"))


@pytest.mark.parametrize("where", ["header", "values"])
def test_branch_damaged_checkpoint_is_skipped_or_refused(origin, tmp_path, where):
    shutil.copytree(origin, tmp_path / "a")
    path = path_of(tmp_path / "a/checkpoints", 8)
    with h5py.File(path, locking=False) as file:
        offset = file["fields/T"].id.get_offset() if where == "values" else 40
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    done = run_anyrank(*words(tmp_path / "named", "--from", f"{tmp_path / 'a'}@8", "--steps", 9), ranks=2)
    assert done.returncode == 2 and "no checkpoint can be used" in done.stderr and not (tmp_path / "named").exists()
    assert ("T is damaged" in done.stderr) == (where == "values")
    done = run_anyrank(*words(tmp_path / "newest", "--from", tmp_path / "a", "--steps", 9), ranks=2)
    assert done.returncode == 0 and f"checkpoint refused: {path}" in done.stderr, done.stderr
    assert lineage_of(tmp_path / "newest")[0]["step"] == 6
    branch = run(program("Dyed", steps=9), out=tmp_path / "dyed", branch_from=str(tmp_path / "a"), allow_missing="dye")
    assert branch.summary["lineage"][0]["step"] == 6


def test_branch_of_another_program_missing_members_are_set_up(origin, tmp_path):
    with pytest.raises(UsageError, match=r"dye is missing in the checkpoint\n(.|\n)*--allow-missing NAMES"):
        run(program("Dyed"), out=tmp_path / "d", branch_from=f"{origin}@4")
    assert not (tmp_path / "d").exists()
    mine = run(program("Dyed"), out=tmp_path / "d", branch_from=f"{origin}@4", allow_missing="dye")
    theirs = Run(origin)
    assert mine.fields["T"].tobytes() == theirs.fields["T"].tobytes() and mine.result == theirs.result
    assert mine.fields["dye"][0].tolist() == [*range(13)] and mine.summary["lineage"][0]["missing"] == ["dye"]
    done = run_anyrank(*words(tmp_path / "bare", "--from", f"{origin}@4", "--steps", 6, source="Bare"), ranks=2)
    assert done.returncode == 0 and "in the checkpoint, and not used: heated, v" in done.stderr, done.stderr
    with h5py.File(path_of(origin / "checkpoints", 4), locking=False) as file:
        assert np.array_equal(Run(tmp_path / "bare").fields["T"], file["fields/T"][()] + 1 + 1)


@pytest.mark.parametrize("ranks", [1, 2])
def test_branch_differences_of_the_state_are_listed(origin, tmp_path, ranks):
    done = run_anyrank(*words(tmp_path / "s", "--from", origin, "--n", 9, source="Single"), ranks=ranks)
    text = " ".join(done.stderr.split())
    assert done.returncode == 2 and not (tmp_path / "s").exists(), done.stderr
    assert "of the program plate, does not fit: T has the type <f4" in text
    assert "other is missing in the checkpoint" in text
    assert text.count("T has the type <f4, and in the checkpoint <f8") == 1


@pytest.mark.parametrize("method", ["nearest", "linear", "conservative"])
def test_branch_with_another_resolution_has_one_digest(origin, tmp_path, method):
    digests = set()
    for ranks in (1, 3):
        more = ("--from", f"{origin}@4", "--n", 20, "--regrid", method)
        done = run_anyrank(*words(tmp_path / f"r{ranks}", *more), ranks=ranks)
        assert done.returncode == 0 and f"interpolated ({method}): T, v" in done.stderr, done.stderr
        digests.add(Run(tmp_path / f"r{ranks}").digest)
    (entry,) = lineage_of(tmp_path / "r3")
    assert len(digests) == 1 and entry["regrid"] == method and entry["changed"]["n"] == {"from": 12, "to": 20}


def test_branch_regrid_of_a_damaged_checkpoint_is_refused(origin, tmp_path):
    shutil.copytree(origin, tmp_path / "a")
    path = path_of(tmp_path / "a/checkpoints", 4)
    with h5py.File(path, locking=False) as file:
        offset = file["fields/v"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match="v is damaged"):
        run(program("Plate", n=20), out=tmp_path / "r", branch_from=f"{tmp_path / 'a'}@4", regrid="linear")


def test_branch_that_cannot_be_interpolated_is_refused(origin, tmp_path):
    with pytest.raises(UsageError, match=r"T has the shape \(20, 21\), and in the checkpoint \(12, 13\)\n(.|\n)*v has"):
        run(program("Plate", n=20), out=tmp_path / "r", branch_from=f"{origin}@4")
    run(program("Counted"), out=tmp_path / "c", stop_at=2)
    asked = {"branch_from": str(tmp_path / "c"), "regrid": "linear"}
    with pytest.raises(UsageError, match="seen is no field: --regrid cannot interpolate it"):
        run(program("Counted", n=9), out=tmp_path / "r", **asked)
    done = run(program("Counted", n=9), out=tmp_path / "r", **asked, allow_missing="seen")
    assert done.finished and done.fields["x"].tolist() == [4.0] * 9


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--from", "none"), "none: there is no run. Give the folder of a run"),
        (("--from", "{origin}@5"), "The run has those of the steps 2, 4, 6, 8. Use one of them"),
        (("--from", "{origin}"), "steps = 8 must be more than 8, the step of"),
        (("--from", "{origin}@4", "--viscosity", "2"), "No such option '--viscosity'"),
        (("--from", "{origin}@4", "--set", "viscosity=2"), "viscosity = '2' is not a parameter of plate"),
        (("--from", "{origin}@4", "--nu", "-1"), "--nu -1 must be greater than 0"),
        (("--from", "{origin}@4", "--allow-missing", "dye"), "--allow-missing dye: the state has no such member"),
        (("--regrid", "linear"), "--regrid linear is only for a branch. Add --from RUN"),
        (("--allow-missing", "T"), "--allow-missing T is only for a branch"),
        (("--from", "{origin}@4", "--regrid", "cubic"), "--regrid 'cubic' must be one of"),
        (("--from", "@4"), "--from '@4' must be the folder of a run, or RUN@STEP"),
    ],
)
def test_branch_bad_input_is_refused_before_any_work(origin, tmp_path, more, message):
    more = [word.replace("{origin}", str(origin)) for word in more]
    done = run_anyrank(*words(tmp_path / "b", *more), ranks=2, cwd=tmp_path)
    text = " ".join(done.stderr.split())
    assert done.returncode == 2 and text.count(message) == 1 and not (tmp_path / "b").exists(), done.stderr


@pytest.mark.parametrize("name", ["wordcount", "sort", "grep", "groupby", "farm"])
def test_branch_of_a_program_that_reads_on_is_refused(name):
    assert not load(name).branchable and load("weather").branchable


def test_branch_of_wordcount_is_refused(tmp_path):
    (tmp_path / "text.txt").write_text("a b a")
    words = ("run", "wordcount", "--files", "text.txt", "--out")
    assert run_anyrank(*words, "a", cwd=tmp_path).returncode == 0
    done = run_anyrank(*words, "b", "--from", "a", ranks=2, cwd=tmp_path)
    assert done.returncode == 2 and "wordcount cannot begin with the State of another run" in done.stderr
    assert not (tmp_path / "b").exists()


def test_branch_of_a_run_without_checkpoints_is_refused(tmp_path, origin):
    shutil.copytree(origin, tmp_path / "a")
    shutil.rmtree(tmp_path / "a/checkpoints")
    with pytest.raises(UsageError, match=r"a holds no checkpoint\. Give the folder of a run"):
        run(program("Plate"), out=tmp_path / "b", branch_from=str(tmp_path / "a"))


def test_branch_submitted_begins_when_its_job_starts(origin, tmp_path):
    """`anyrank submit` writes run.toml without a lineage, and the job resumes."""
    out = tmp_path / "b"
    done = run_anyrank("submit", f"{FILE}:Plate", "--from", f"{origin}@4", "--nu", 0.2, "--dry-run", "--out", out)
    assert done.returncode == 0 and not out.exists(), done.stderr
    options = Options(branch_from=f"{origin}@4")
    out.mkdir()
    RunFolder(out).create("plate", f"{FILE}:Plate", program("Plate", nu=0.2).parameters, options.kept())
    done = run_anyrank("resume", out, ranks=2)
    assert done.returncode == 0, done.stderr
    assert Run(out).digest == run(program("Plate", nu=0.2), out=tmp_path / "c", branch_from=f"{origin}@4").digest
    assert lineage_of(out)[0]["step"] == 4


def test_branches_of_a_study_inherit_and_find_their_origin(origin, tmp_path):
    shutil.copytree(origin, tmp_path / "p1")
    (tmp_path / "study.toml").write_text(
        f'program = "{FILE}:Plate"\n[parameters]\nsteps = 9\n[options]\nbranch_from = "p1@4"\n[grid]\nnu = [0.1, 0.2]\n'
    )
    members = read_study(tmp_path / "study.toml").members
    assert [member.parameters["nu"] for member in members] == [0.1, 0.2]
    assert all(member.parameters["n"] == 12 and member.parameters["steps"] == 9 for member in members)
    assert all(member.options["branch_from"] == f"{tmp_path / 'p1'}@4" for member in members)
    shutil.rmtree(tmp_path / "p1")
    with pytest.raises(UsageError, match=r"p1@4: there is no run"):
        read_study(tmp_path / "study.toml")


def test_branch_option_makes_paths_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Options(branch_from="runs/a@b@12").origin == (tmp_path / "runs/a@b", 12)
    assert Options(branch_from="runs/a@b").origin == (tmp_path / "runs/a@b", None)
    assert Options(allow_missing="a,b").missing_names == ("a", "b") and Options().origin is None
