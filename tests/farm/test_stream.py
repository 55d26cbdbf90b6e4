"""Tasks from standard input and from files that grow; results as tasks end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from farm.runs import WORK, digest, farm, rows_of
from farm.runs import table as make_table
from ranks import anyrank_command, run_anyrank, start_process

from anyrank import launcher
from anyrank.errors import AnyrankError, UsageError
from anyrank.farm.inputs import json_row
from anyrank.farm.streams import PART, Stream, _Input
from anyrank.world import World


@pytest.fixture(scope="module")
def alone():
    world = World()
    yield world
    world.close()


def lines_of(numbers):
    return "".join(f'{{"x": {number}}}\n' for number in numbers)


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing came in time"
        time.sleep(0.02)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_stream_of_standard_input_gives_results_as_tasks_end(tmp_path, ranks):
    words = ("--table", "-", "--as-completed", "-", "--out", tmp_path / "run", "--quiet")
    command = anyrank_command("farm", f"{WORK}:square", *words, ranks=ranks)
    with start_process(*command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        for number in range(4):  # the next line is written when the result of the one before has come
            process.stdin.write(lines_of([number]))
            process.stdin.flush()
            row = json.loads(process.stdout.readline())
            assert row == {"task": number, "id": str(number), "x": number, "status": "done", "value": number**2}
        process.stdin.close()
        assert process.wait(60) == 0
    assert [row["value"] for row in rows_of(tmp_path / "run" / "results.csv")] == ["0", "1", "4", "9"]


def test_stream_of_a_growing_file_resumes_behind_its_last_line(tmp_path):
    table, out, run = tmp_path / "t.jsonl", tmp_path / "done.jsonl", tmp_path / "run"
    table.write_text(lines_of(range(3)) + '{"x": ')
    words = ("--table", table, "--follow", 600, "--as-completed", out, "--out", run, "--quiet")
    with start_process(*anyrank_command("farm", f"{WORK}:square", *words, ranks=2)) as process:
        wait_until(lambda: out.exists() and len(out.read_text().splitlines()) == 3)
        with table.open("a") as file:
            file.write("3}\n")
        wait_until(lambda: len(out.read_text().splitlines()) == 4)
        (run / "stop").touch()
        assert process.wait(60) == 75
    with table.open("a") as file:
        file.write(lines_of(range(4, 7)) + "null\n" + lines_of([7]))
    assert run_anyrank("resume", run, ranks=3).returncode == 0
    assert sorted(json.loads(line)["value"] for line in out.read_text().splitlines()) == [n * n for n in range(7)]
    assert [row["value"] for row in rows_of(run / "results.csv")] == [str(n * n) for n in range(7)]
    table.write_text(lines_of(range(7)))
    farm(f"{WORK}:square", "--table", table, out=tmp_path / "other")
    assert (tmp_path / "other" / "results.csv").read_text() == (run / "results.csv").read_text()
    assert digest(tmp_path / "other") != "" and digest(run) != ""


def test_stream_of_standard_input_takes_a_long_line(monkeypatch, tmp_path):
    (tmp_path / "in").write_bytes(b"a" * 3 * PART + b"\nb\n")
    monkeypatch.setenv(launcher.STDIN, str(tmp_path / "in"))
    source, lines = _Input(False), []
    wait_until(lambda: lines.extend(source.read(0.1)) or source.ended, 20)
    assert [line for line, _ in lines] == [b"a" * 3 * PART, b"b"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_as_completed_takes_odd_values_and_names(tmp_path, ranks):
    (tmp_path / "t.jsonl").write_text('{"n": 0}\n{"n": 1, "task": 9, "value": 5}\n{"n": 2, "input_task": 8}\n')
    words = ("--table", tmp_path / "t.jsonl", "--as-completed", tmp_path / "done", "--formats", "jsonl")
    farm(f"{WORK}:return_odd", *words, out=tmp_path / "run", ranks=ranks)
    rows = sorted(map(json.loads, (tmp_path / "done").read_text().splitlines()), key=lambda row: row["task"])
    assert rows == [*map(json.loads, (tmp_path / "run" / "results.jsonl").read_text().splitlines())]
    assert "cannot load" in rows[0]["value"] and rows[1]["value"].keys() == {"pickle"}
    assert [*rows[1]] == ["task", "id", "n", "input_task", "input_value", "status", "value"]
    assert rows[2] == {"task": 2, "id": "2", "n": 2, "input_input_task": 8, "status": "done", "value": ["a", "b"]}


def test_json_row_that_is_nested_too_deeply_is_refused():
    with pytest.raises(UsageError, match="is not JSON"):
        json_row(b"[" * 100_000, "line")


@pytest.mark.ranks(2)
def test_stream_of_a_missing_file_is_refused_on_all_ranks(world, tmp_path):
    with pytest.raises(UsageError, match="is no file"):
        Stream(tmp_path / "s", str(tmp_path / "missing"), "", 1.0, False, world)


def test_stream_bad_lines_are_errors_or_left_out(tmp_path):
    table = tmp_path / "t.jsonl"
    table.write_text(lines_of([1]) + "7\nno\n" + lines_of([2]))
    words = ("--table", table, "--follow", 0.1)
    printed = farm(f"{WORK}:square", *words, out=tmp_path / "run", ranks=2, status=2)
    assert printed.count("is 7, not an object. Write one object on each line") == 1
    assert printed.count("leave out such lines with --on-bad skip") == 1
    farm(f"{WORK}:square", *words, "--on-bad", "skip", out=tmp_path / "skip", ranks=2)
    assert [row["x"] for row in rows_of(tmp_path / "skip" / "results.csv")] == ["1", "2"]
    assert json.loads((tmp_path / "skip" / "result.json").read_text())["left_out"] == 2


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--function", f"{WORK}:by_position", "--table", "-"), "takes 'x' by position only"),
        (("--table", "-", "--id", "x", "--after", "y"), "--after needs all tasks at the begin"),
        (("--table", "-", "--cost", "y"), "--cost needs all tasks at the begin"),
        (("--table", "{tmp}/none.jsonl", "--follow", "1"), "none.jsonl is no file"),
        (("--table", "{tmp}/t.jsonl", "--follow", "-1"), "--follow -1"),
    ],
)
def test_stream_wrong_options_are_refused(tmp_path, words, error):
    (tmp_path / "t.jsonl").write_text(lines_of([1]))
    words = [word.format(tmp=tmp_path) for word in words]
    words = words if "--function" in words else [f"{WORK}:square", *words]
    assert farm(*words, out=tmp_path / "run", ranks=2, status=2).count(error) == 1


def test_stream_lines_of_a_killed_process_are_repaired(alone, tmp_path):
    table, folder = tmp_path / "t.jsonl", tmp_path / "inputs"
    table.write_text('{"id": "a", "x": 1}\n\n{"id": "b", "y": [2]}\n')
    stream = Stream(folder, str(table), "id", 0.0, False, alone)
    stream.receive()
    assert (stream.rows, stream.columns) == (2, ["id", "x", "y"])
    for name in ("stream.jsonl", "stream.ends"):
        with (folder / name).open("ab") as file:
            file.write(b'{"id": ')
    with table.open("a") as file:
        file.write('{"id": "c"}')  # the last line has no end
    again = Stream(folder, str(table), "id", 0.0, False, alone)
    assert again.rows == 2 and again.open
    again.receive(1.0)
    assert [row["id"] for row in again.rows_of([2, 0, 1])] == ["c", "a", "b"] and again.rows == 3
    assert [*again.column("x")] == [1, None, None]
    assert not again.open
    with table.open("a") as file:
        file.write('\n{"id": "a"}\n')
    with pytest.raises(UsageError, match="has 'a' again as 'id'"):
        Stream(folder, str(table), "id", 1.0, False, alone).receive()
    table.write_text("")
    with pytest.raises(AnyrankError, match="became shorter"):
        Stream(folder, str(table), "id", 1.0, False, alone).receive()


@pytest.mark.parametrize("how", ["replaced", "removed"])
def test_stream_of_a_file_that_is_gone_is_an_error(alone, tmp_path, how):
    table = tmp_path / "t.jsonl"
    table.write_text(lines_of([1]))
    stream = Stream(tmp_path / "inputs", str(table), "", 60.0, False, alone)
    stream.receive()
    if how == "replaced":
        (tmp_path / "other").write_text(lines_of([1, 2]))
        (tmp_path / "other").replace(table)
    else:
        table.unlink()
    with pytest.raises(AnyrankError, match=r"t.jsonl (was replaced by another file|cannot be read .No such file)"):
        stream.receive()


def test_stream_ends_are_never_written_anew(alone, tmp_path):
    table, opened, watched = tmp_path / "t.jsonl", [], tmp_path / "inputs"
    table.write_text(lines_of(range(3)))
    Stream(watched, str(table), "", 0.0, False, alone).receive()
    # A hook cannot be removed; this one is for the files of this test.
    sys.addaudithook(lambda event, args: event == "open" and str(watched) in str(args[0]) and opened.append(args[2]))
    Stream(watched, str(table), "", 0.0, False, alone)
    assert opened and not any(flags & os.O_TRUNC for flags in opened)


@pytest.mark.parametrize("ranks", [1, 2])
def test_as_completed_that_nobody_reads_stops_the_farm_quietly(tmp_path, ranks):
    """`| head` reads some lines and closes the pipe; the farm resumes with what is missing."""
    words = ("farm", f"{WORK}:draw", "--table", make_table(tmp_path, 300), "--as-completed", "-", "--quiet")
    command = anyrank_command(*words, "--out", tmp_path / "run", ranks=ranks)
    with start_process(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and json.loads(process.stdout.readline())["status"] == "done"
        process.stdout.close()
        assert process.wait(60) == 75 and process.stderr.read() == ""
    assert run_anyrank("resume", tmp_path / "run", "--quiet").returncode == 0
    assert len((tmp_path / "run" / "results.csv").read_text().splitlines()) == 301
