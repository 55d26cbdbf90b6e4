"""The run folder, and write errors that must not end a run."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from ranks import run_anyrank

from anyrank.errors import UsageError
from anyrank.observe.events import Events
from anyrank.observe.log import open_log
from anyrank.runtime import failure, folder
from anyrank.runtime.folder import RunFolder, plain
from anyrank.runtime.options import Options
from anyrank.runtime.stops import Stops

CRASH = Path(__file__).with_name("crash.py")


def test_to_json_has_numbers_of_numpy_and_no_nan():
    value = {
        "n": np.int64(3),
        "x": np.array([1.5, np.nan]),
        "t": (True, None, "s"),
        4: np.float32(np.inf),
        "p": Path("a"),
    }
    text = json.dumps(plain(value), allow_nan=False)
    assert json.loads(text) == {"n": 3, "x": [1.5, "nan"], "t": [True, None, "s"], "4": "inf", "p": "a"}


def test_run_folder_of_a_crash_at_start_is_used_again(tmp_path):
    out = tmp_path / "run"
    for name in ("log", "checkpoints", ".failure-1-2"):
        (out / name).mkdir(parents=True)
    (out / ".run.toml.tmp").write_text("half a li")
    assert run_anyrank("run", CRASH, "--how", "no", "--steps", 3, "--out", out).returncode == 0


def test_run_folder_checkpoints_without_run_toml_are_refused(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-000000000001.h5").write_text("dear")
    with pytest.raises(UsageError, match="holds checkpoints and no run"):
        RunFolder(tmp_path).check("p", {})


def test_run_folder_without_locks_of_the_file_system_is_used(tmp_path, monkeypatch):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folder.fcntl, "flock", refuse)
    run = RunFolder(tmp_path / "run")
    run.lock()
    run.unlock()
    assert (tmp_path / "run" / "lock").read_text().startswith("process ")


def test_run_folder_lock_excludes_a_second_run_until_unlock(tmp_path, monkeypatch):
    monkeypatch.setenv(folder.LOCK_PATIENCE, "0.1")
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    first.lock()
    with pytest.raises(UsageError, match="is in use by a live run"):
        second.lock()
    first.unlock()
    second.lock()
    second.unlock()


def test_events_full_disk_does_not_end_a_run():
    events = Events(Path("/dev/full"))
    events.say("start", ranks=1)
    events.close()


def test_stop_file_of_an_earlier_run_is_ignored(tmp_path):
    (tmp_path / "stop").touch()
    stops = Stops(tmp_path / "stop", None, 0.0, watch=True)
    try:
        assert not (tmp_path / "stop").exists() and stops.reason(10.0, 0.0) == 0
        (tmp_path / "stop").touch()
        assert stops.reason(20.0, 0.0) != 0
    finally:
        stops.close()
    assert not (tmp_path / "stop").exists()


def test_report_and_abort_without_writable_folder_ends_all(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    ended = []
    world = SimpleNamespace(rank=2, size=4, abort=ended.append)
    failure.report_and_abort(world, ValueError("bad luck"), tmp_path / "file" / "failure")
    assert ended == [1] and "rank 2 of 4 failed" in capsys.readouterr().err
    failure.report_and_abort(world, UsageError("no"), tmp_path / "failure")
    assert ended == [1, 2]


def test_last_checkpoint_is_marked_finished(tmp_path):
    out = tmp_path / "run"
    words = ("run", CRASH, "--how", "no", "--steps", 20, "--checkpoint-every", 10, "--out", out)
    assert run_anyrank(*words).returncode == 0
    with h5py.File(out / "checkpoints" / "step-000000000020.h5") as file:
        assert bool(file.attrs["finished"])
    with h5py.File(out / "checkpoints" / "step-000000000010.h5") as file:
        assert not bool(file.attrs["finished"])


def test_open_log_full_disk_prints_nothing(tmp_path, capfd):
    (tmp_path / "rank-0000.log").symlink_to("/dev/full")
    open_log(tmp_path, 0).info("a line")
    assert capfd.readouterr() == ("", "")
    open_log(tmp_path / "next", 0).info("another line")
    assert "another line" in (tmp_path / "next" / "rank-0000.log").read_text(), (
        "the next run of this process has its log"
    )


DESCRIPTION = 'format = 1\nprogram = "p"\nsource = "p"\n[parameters]\nn = 1\n[options]\nkeep = 2\n'
DAMAGED = {
    "a newer format": (("format = 1", "format = 2"), "was made by a newer version of anyrank"),
    "a format of text": (("format = 1", 'format = "x"'), "run.toml: format = 'x' must be a whole number"),
    "no source": (('source = "p"\n', ""), "run.toml: source is missing"),
    "a program of no text": (('program = "p"', "program = 3"), "run.toml: program = 3 must be text"),
    "an unknown key": (("format = 1", "format = 1\nsauce = 1"), "sauce = 1 is not known here. Did you mean source?"),
    "parameters of no table": (("[parameters]\nn = 1\n", "parameters = 3\n"), "parameters = 3 must be a table"),
    "an option of another type": (("keep = 2", "keep = 1.5"), "options: keep = 1.5 must be a whole number"),
    "an unknown option": (("keep = 2", "kep = 2"), "options: kep = 2 is not known here. Did you mean keep?"),
    "half a line": (("keep = 2\n", "keep ="), "run.toml cannot be read"),
    "no UTF-8": (("n = 1", 'n = "\udcff"'), "run.toml cannot be read ('utf-8' codec"),
    "deep": (("n = 1", f"n = {'[' * 3000}{']' * 3000}"), "run.toml cannot be read (its values are nested too deeply)"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_run_toml_damaged_is_refused_by_name(tmp_path, case):
    (before, after), message = DAMAGED[case]
    text = DESCRIPTION.replace(before, after)
    (tmp_path / "run.toml").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UsageError) as refused:
        RunFolder(tmp_path).check("p", {"n": 1})
    assert message in str(refused.value)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_run_toml_that_is_no_file_is_refused_at_once(tmp_path, make):
    make(tmp_path / "run.toml")
    with pytest.raises(UsageError, match=r"run.toml cannot be read \(it is not a file\)"):
        RunFolder(tmp_path).describe()


def test_run_toml_that_create_writes_is_read(tmp_path):
    run = RunFolder(tmp_path)
    run.create("p", "p.py", {"n": 1, "path": "/a"}, Options(ranks=3).kept())
    description = run.describe()
    assert (description.program, description.source, description.parameters) == ("p", "p.py", {"n": 1, "path": "/a"})
    assert Options(**description.options) == Options(ranks=3)


@pytest.mark.parametrize("text", ["[1]", '"finished"', '{"finished": true}', "{", "[" * 100_000, '{"finished": 1}'])
def test_finished_of_a_damaged_summary_is_none(tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    assert RunFolder(tmp_path).finished() is None


def test_resume_damaged_parameter_is_named(tmp_path, refused):
    RunFolder(tmp_path / "r").path.mkdir()
    RunFolder(tmp_path / "r").create("pi", "pi", {"points": "many"}, {})
    done = refused("resume", "r", cwd=tmp_path)
    assert done.returncode == 2 and "run.toml: pi: points = many must be a whole number" in done.stderr


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory):
    """The folder of a stopped run of examples/heat.py without its run.toml, and the folder of a finished one."""
    folder = tmp_path_factory.mktemp("lost")
    assert run_anyrank(*HEAT, "--out", folder / "through").returncode == 0
    assert run_anyrank(*HEAT, "--out", folder / "run", "--stop-at", 4, ranks=2).returncode == 75
    (folder / "run/run.toml").unlink()
    return folder / "run", folder / "through"


HEAT = ("run", Path(__file__).parents[2] / "examples" / "heat.py", "--n", 12, "--steps", 9, "--keep", 5)


@pytest.mark.parametrize("way", ["resume", "run", "resume --program"])
def test_run_without_run_toml_continues(stopped_run, tmp_path, way):
    out = Path(shutil.copytree(stopped_run[0], tmp_path / "run"))
    words = {"resume": ("resume", out), "run": (*HEAT, "--out", out), "resume --program": ("resume", out)}[way]
    if "--program" in way:
        words += ("--program", HEAT[1])
    done = run_anyrank(*words)
    assert done.returncode == 0 and done.stderr.count("run.toml is missing: written again") == 1, done.stderr
    result, expected = (json.loads((folder / "summary.json").read_text()) for folder in (out, stopped_run[1]))
    assert result["resumed_from"] == 4 and result["digest"] == expected["digest"]
    again = run_anyrank("resume", out)
    assert again.returncode == 0 and "is finished" in again.stdout and "missing" not in again.stderr
    assert RunFolder(out).describe().parameters == RunFolder(stopped_run[1]).describe().parameters


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((*HEAT, "--nu", 0.2), "holds a run with nu = 0.1, not 0.2"),
        (("run", "pi", "--points", 10), "holds a run of 'heat', not of 'pi'"),
    ],
)
def test_run_without_run_toml_refuses_another_run(stopped_run, refused, words, expected):
    done = refused(*words, "--out", stopped_run[0])
    assert done.returncode == 2 and done.stderr.count(expected) == 1
    assert not (stopped_run[0] / "run.toml").exists()


def test_resume_without_run_toml_and_source_requests_it(stopped_run, tmp_path, refused):
    out = Path(shutil.copytree(stopped_run[0], tmp_path / "run"))
    assert run_anyrank("resume", out, "--stop-at", 6).returncode == 75  # the newest checkpoint now names this command
    (out / "run.toml").unlink()
    done = refused("resume", out)
    assert (
        done.returncode == 2
        and "no checkpoint contains the path of the program 'heat'. Add --program FILE" in done.stderr
    )
    done = refused("submit", out, "--on", "slurm", "--dry-run")
    assert done.returncode == 2 and "run.toml is missing" in done.stderr


def test_resume_without_run_toml_and_checkpoints_is_refused(tmp_path, refused):
    done = refused("resume", tmp_path)
    assert done.returncode == 2 and "holds no run (no run.toml, and no valid checkpoint)" in done.stderr


@pytest.mark.parametrize("ranks", [1, 2])
def test_run_with_an_empty_out_uses_a_new_folder(ranks, tmp_path):
    done = run_anyrank("run", "pi", "--points", 1000, "--out", "", ranks=ranks, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len([*tmp_path.glob("runs/pi-*/summary.json")]) == 1


def test_run_stop_file_that_is_a_folder_is_refused(tmp_path):
    (tmp_path / "run" / "stop").mkdir(parents=True)
    done = run_anyrank("run", "pi", "--points", 1000, "--out", tmp_path / "run")
    assert done.returncode == 2 and "stop is a folder" in done.stderr and "Traceback" not in done.stderr
