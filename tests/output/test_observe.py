"""Observing a run: rows on any ranks, stopped and resumed; the progress; what is refused."""

from __future__ import annotations

import json
import os
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from ranks import mpiexec, run_anyrank

import anyrank
from anyrank.errors import AnyrankError, UsageError
from anyrank.runtime.programs import load
from anyrank.runtime.python import Run

FILE = Path(__file__).with_name("observing.py")
PROGRAM = f"{FILE}:Observing"
Observing = load(PROGRAM)


def outputs(folder):
    return {name: (folder / name).read_bytes() for name in ("series.csv", "series.h5")}


@pytest.fixture(scope="module")
def through(tmp_path_factory):
    """The folder of an unbroken run on one rank."""
    out = tmp_path_factory.mktemp("through") / "run"
    anyrank.run(Observing(), out=out)
    return out


def test_observe_values_are_those_of_numpy(through):
    series, x = Run(through).series, 0.1 * np.arange(12)
    assert [*series] == ["step", "mean", "ends[0]", "ends[1]", "warm", "step^2"]
    assert series["step"].tolist() == [*range(21)] and series["step^2"].tolist() == [k * k for k in range(21)]
    for step in range(21):
        mean = float(sum(map(Fraction, x.tolist())) / 12)
        assert series["mean"][step] == mean and series["warm"][step] == (mean > 2)
        assert (series["ends[0]"][step], series["ends[1]"][step]) == (x.min(), x.max())
        x = x * 1.01 + 0.3
    assert series.frame().shape == (21, 6)


@pytest.mark.parametrize("ranks", [2, 3, 4, 7])
def test_observe_on_more_ranks_has_the_same_bytes(through, tmp_path, ranks):
    done = run_anyrank("run", PROGRAM, "--out", tmp_path / "run", "--quiet", "--check", ranks=ranks)
    assert done.returncode == 0, done.stderr
    assert outputs(tmp_path / "run") == outputs(through)


@pytest.mark.parametrize("stops", [(0,), (7,), (4, 5, 19), (20,)])
def test_observe_stopped_and_resumed_has_the_same_bytes(through, tmp_path, stops):
    for stop in stops:
        anyrank.run(Observing(), out=tmp_path / "run", stop_at=stop)
        assert Run(tmp_path / "run").series["step"].tolist() == [*range(stop + 1)]
    anyrank.run(Observing(), out=tmp_path / "run")
    assert outputs(tmp_path / "run") == outputs(through)


def test_observe_rows_after_the_checkpoint_are_cut(through, tmp_path):
    """As a kill leaves them: also the row of the step of the checkpoint, a torn one, and none of series.h5."""
    out = tmp_path / "run"
    anyrank.run(Observing(), out=out, stop_at=9)
    whole = (through / "series.csv").read_bytes()
    for left in (whole[: len(whole) // 2 + 200], whole[:-7], b"".join(whole.splitlines(True)[:11])):
        (out / "series.csv").write_bytes(left)
        (out / "series.h5").unlink(missing_ok=True)
        assert anyrank.run(Observing(), out=out, stop_at=10).series["step"].tolist() == [*range(11)]
    anyrank.run(Observing(), out=out)
    assert outputs(out) == outputs(through)


def test_observe_every_is_kept_and_ends_with_the_last_step(tmp_path):
    out = tmp_path / "run"
    assert anyrank.run(Observing(), out=out, observe_every=7, stop_at=9).series["step"].tolist() == [0, 7]
    assert anyrank.run(Observing(), out=out).series["step"].tolist() == [0, 7, 14, 20]
    assert "observe_every = 7" in (out / "run.toml").read_text()


def test_observe_every_of_a_multiple_thins_the_rows(tmp_path):
    out = tmp_path / "run"
    anyrank.run(Observing(), out=out, observe_every=2, stop_at=9)
    with pytest.raises(UsageError, match=r"--observe-every 3 is no multiple of 2, .* Use a multiple of 2, or another"):
        anyrank.run(Observing(), out=out, observe_every=3)
    assert "observe_every = 2" in (out / "run.toml").read_text()
    assert anyrank.run(Observing(), out=out, observe_every=4, stop_at=10).series["step"].tolist() == [0, 4, 8]
    last = anyrank.run(Observing(), out=out)
    assert last.series["step"].tolist() == [0, 4, 8, 12, 16, 20]
    anyrank.run(Observing(), out=tmp_path / "through", observe_every=4)
    assert outputs(out) == outputs(tmp_path / "through")


@pytest.mark.parametrize("stop", [None, 100, 150, 400])
def test_observe_of_unknown_length_has_the_interval_of_its_end(tmp_path, stop):
    """The mean reaches its bound at step 434: the default interval is then 4."""
    program = Observing(until=2500.0)
    if stop is not None:
        anyrank.run(program, out=tmp_path / "run", stop_at=stop)
    run = anyrank.run(program, out=tmp_path / "run")
    last = run.summary["steps"]
    assert 257 < last <= 512
    assert run.series["step"].tolist() == sorted({*range(0, last, 4), last})


def test_observe_starts_anew_without_a_checkpoint(through, tmp_path):
    out = tmp_path / "run"
    anyrank.run(Observing(), out=out, stop_at=9)
    for path in (out / "checkpoints").iterdir():
        path.unlink()
    anyrank.run(Observing(), out=out)
    assert outputs(out) == outputs(through)


@pytest.mark.parametrize("left", ["missing", "gap", "empty"])
def test_observe_missing_rows_are_told_once(tmp_path, left):
    out = tmp_path / "run"
    anyrank.run(Observing(), out=out, stop_at=9)
    lines = (out / "series.csv").read_text().splitlines(keepends=True)
    (out / "series.csv").write_text("".join({"gap": lines[:3] + lines[5:]}.get(left, [])))
    if left == "missing":
        (out / "series.csv").unlink()
    done = run_anyrank("resume", out, ranks=2)
    count, rows = (
        ("2 rows from step 2 to 3", [0, 1, *range(4, 21)])
        if left == "gap"
        else ("9 rows from step 0 to 8", [*range(9, 21)])
    )
    assert done.returncode == 0 and done.stderr.count(f"warning: {out}/series.csv lacks {count}") == 1, done.stderr
    assert Run(out).series["step"].tolist() == rows
    assert any(f"lacks {count}" in line for line in (out / "events.jsonl").read_text().splitlines())


def test_observe_edited_file_is_refused_and_kept(tmp_path, in_process):
    out = tmp_path / "run"
    anyrank.run(Observing(), out=out, stop_at=9)
    text = (out / "series.csv").read_text().replace("\n4,", "\nfour,")
    (out / "series.csv").write_text(text)
    done = run_anyrank("resume", out, ranks=2)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.count("series.csv, line 6: 'four,") == 1 and "Restore the file, or move it away" in done.stderr
    assert (out / "series.csv").read_text() == text
    (out / "series.csv").rename(out / "away.csv")
    assert run_anyrank("resume", out).returncode == 0


def test_observe_columns_of_a_changed_program_are_refused(tmp_path):
    source = tmp_path / "observing.py"
    source.write_text(FILE.read_text())
    words = ("run", f"{source}:Observing", "--out", tmp_path / "run", "--stop-at", 9)
    assert run_anyrank(*words).returncode == 75
    source.write_text(FILE.read_text().replace('"warm": mean > 2', '"hot": mean > 2'))
    done = run_anyrank("resume", tmp_path / "run", ranks=2)
    assert done.returncode == 1 and done.stderr.count("observing: step 10: observe returned the columns mean, ") == 1


BAD = {
    "list": "observe returned [1.4756955500000002], but must return numbers by name",
    "text": "observe returned mean = 'warm', but a value must be a bool, an int or float",
    "other name": "observe returned the columns mean, ends[0], ends[1], warm, step^2, new, but",
    "fewer": "observe returned the columns mean, but",
    "nothing": "observe returned the columns no columns, but",
    "other type": "of the type int, but in the rows before it is float. Return float(…) at every step.",
}


@pytest.mark.parametrize("how", BAD)
def test_observe_that_returns_no_row_is_one_error(tmp_path, how):
    for out, at, status in (("later", 3, 1), ("first", 0, 2)):
        if at == 0 and how not in ("list", "text"):
            continue  # the first row defines the columns
        words = ("run", PROGRAM, "--how", how, "--at", at, "--out", tmp_path / out, "--quiet")
        for ranks in (1, 2):
            done = run_anyrank(*words, ranks=ranks)
            assert done.returncode == status, done.stderr
            assert done.stderr.count(f"observing: step {at}: ") == 1 and "Traceback" not in done.stderr
            assert at == 0 or BAD[how] in done.stderr, done.stderr
            at_end = (tmp_path / out / "series.csv").read_text() if (tmp_path / out / "series.csv").exists() else ""
            assert at_end.count("\n") == (4 if at else 0), "the rows before stay"


DIFFERENT = {
    "rank": "mean: 0.0 (float) on rank 0, 1.0 (float) on rank 1, 2.0 (float) on rank 2",
    "rank's name": "columns: mean, ends[0], ends[1], warm, step^2, from 0 on rank 0, ",
    "rank's type": "step^2: 9 (int) on rank 0, 9.0 (float) on ranks 1-2",
    "rank's order": "columns: mean, ends[0], ends[1], warm, step^2 on rank 0, step^2, warm, ends[0], ends[1], mean on",
    "text on one": "problem: none on ranks 0,2, observe returned mean = 'warm', but a value must be",
}


@pytest.mark.parametrize("how", DIFFERENT)
def test_observe_different_values_of_ranks_are_one_error(tmp_path, how):
    done = run_anyrank("run", PROGRAM, "--how", how, "--out", tmp_path / "run", "--quiet", ranks=3)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.count("observing: step 3: observe returned other values on other ranks:") == 1
    assert DIFFERENT[how] in done.stderr, done.stderr
    assert "reduce by exact.sum" in done.stderr


def test_observe_nan_is_a_value(tmp_path):
    run = anyrank.run(Observing(how="nan"), out=tmp_path / "one")
    assert np.isnan(run.series["mean"][3:]).all() and not np.isnan(run.series["mean"][:3]).any()
    done = run_anyrank("run", PROGRAM, "--how", "nan", "--out", tmp_path / "two", ranks=2)
    assert done.returncode == 0 and outputs(tmp_path / "two") == outputs(tmp_path / "one")


@pytest.mark.parametrize("ranks", [1, 2])
def test_observe_exception_on_one_rank_ends_all(tmp_path, ranks):
    done = run_anyrank("run", PROGRAM, "--how", "raise", "--out", tmp_path / "run", "--quiet", ranks=ranks, timeout=60)
    assert done.returncode == 1 and done.stderr.count("ZeroDivisionError: as asked") == 1, done.stderr
    assert done.stderr.count("Traceback") == 1


def test_observe_every_without_observe_is_refused(tmp_path):
    words = ("run", f"{FILE}:Silent", "--out", tmp_path / "run", "--observe-every", 5)
    done = run_anyrank(*words, ranks=2)
    assert done.returncode == 2 and done.stderr.count("--observe-every 5: silent has no method observe") == 1
    assert not (tmp_path / "run").exists()
    assert len(anyrank.run(load(f"{FILE}:Silent")(), out=tmp_path / "run").series) == 0
    assert not (tmp_path / "run" / "series.csv").exists() and not (tmp_path / "run" / "series.h5").exists()


def test_observe_every_of_zero_is_refused(tmp_path, refused):
    done = refused("run", PROGRAM, "--observe-every", 0, "--out", tmp_path / "run")
    assert done.returncode == 2 and "--observe-every 0 must be at least 1" in done.stderr
    done = refused("run", PROGRAM, "--on-full-disk", "wait", "--out", tmp_path / "run")
    assert done.returncode == 2 and "--on-full-disk 'wait' must be one of stop, warn" in done.stderr


def test_observe_file_that_is_a_folder_is_refused(tmp_path):
    out = tmp_path / "run"
    anyrank.run(Observing(), out=out, stop_at=5)
    (out / "series.csv").unlink()
    (out / "series.csv").mkdir()
    done = run_anyrank("resume", out, ranks=2)
    assert done.returncode == 2 and done.stderr.count("series.csv cannot be ") == 1, done.stderr
    assert "Traceback" not in done.stderr


def test_observe_in_a_read_only_folder_is_refused(tmp_path, in_process, monkeypatch):
    """Root may write into any folder, so the answer of the system is replaced."""
    out = tmp_path / "run"
    anyrank.run(Observing(), out=out, stop_at=5)
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: False if mode & os.W_OK else real(path, mode))
    with pytest.raises(UsageError, match=r"run cannot be written \(Permission denied\)"):
        anyrank.run(Observing(), out=out)


def full(monkeypatch, after):
    """Let writes of rows fail as on a full disk, each after half of its bytes, once so many have succeeded."""
    count, real = iter(range(10**6)), os.pwrite

    def write(descriptor, data, offset):
        if Path(f"/proc/self/fd/{descriptor}").readlink().name != "series.csv" or next(count) < after:
            return real(descriptor, data, offset)
        if len(data) > 1:
            return real(descriptor, data[: len(data) // 2], offset)
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "pwrite", write)


@pytest.mark.parametrize("after", [0, 5])
def test_observe_full_disk_stops_and_resume_continues(through, tmp_path, monkeypatch, after):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        full(patch, after)
        with pytest.raises(AnyrankError, match=r"series.csv cannot be written \(No space left on device\). Make room"):
            anyrank.run(Observing(), out=out, checkpoint_every=4)
    text = (out / "series.csv").read_bytes()
    assert (through / "series.csv").read_bytes().startswith(text) and text.count(b"\n") == (after and after + 1)
    anyrank.run(Observing(), out=out)
    assert outputs(out) == outputs(through)


def test_observe_full_disk_with_warn_ends_only_the_series(through, tmp_path, monkeypatch):
    out = tmp_path / "run"
    full(monkeypatch, 5)
    run = anyrank.run(Observing(), out=out, on_full_disk="warn")
    assert run.finished and run.digest == Run(through).digest
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    warnings = [event["text"] for event in events if event["event"] == "output-warning"]
    assert len(warnings) == 1 and "No space left on device" in warnings[0] and "the run goes on" in warnings[0]
    assert run.series["step"].tolist() == [*range(5)]


def test_observe_on_a_small_disk_stops_all_ranks(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        words = (
            "run",
            PROGRAM,
            "--steps",
            10**6,
            "--observe-every",
            1,
            "--checkpoint-every",
            50,
            "--out",
            disk / "run",
        )
        done = run_anyrank(*words, ranks=2)
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
        assert done.stderr.count("series.csv cannot be written (No space left on device). Make room, and") == 1
        assert (disk / "run/series.csv").read_bytes().endswith(b"\n")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_observe_newest_row_is_in_the_progress(tmp_path):
    words = ("run", PROGRAM, "--out", tmp_path / "run", "--pause", 0.05)
    done = run_anyrank(*words, env={"ANYRANK_TERMINAL": "180"})
    assert done.returncode == 0 and ", mean 7.277, ends[0] " in done.stderr, done.stderr
    assert "warm true, step^2 400]" in done.stderr


def test_observe_by_all_ranks_of_a_script_is_read(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, anyrank\n"
        f"run = anyrank.run({PROGRAM!r}, out=sys.argv[1])\n"
        "sys.stdout.write(f\"{run.series['step'].tolist()[-1]} {run.series['mean'][-1]!r}\\n\")\n"
    )
    import sys

    done = mpiexec(2, sys.executable, script, tmp_path / "run")
    lines = {*done.stdout.split("\n")} - {""}
    assert done.returncode == 0 and len(lines) == 1 and lines.pop().startswith("20 "), done.stderr
