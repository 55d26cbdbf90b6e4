"""grep gives the counts of GNU grep, on any number of ranks, whether stopped and resumed or not."""

from __future__ import annotations

import json
import os
import subprocess
import tracemalloc

import pytest
from books import king_james
from mpi4py import MPI
from ranks import check_collective, run_anyrank

from anyrank.errors import UsageError
from anyrank.keyed.programs.grep import Grep
from anyrank.state import State
from anyrank.world import World


@pytest.fixture
def alone():
    world = World(MPI.COMM_SELF)
    yield world
    world.close()


def gnu(folder, pattern, flags=""):
    """How often GNU grep finds only this pattern in all files of a folder."""
    command = ["grep", "-aorhF" + flags, "-e", pattern, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert done.returncode in (0, 1)
    return done.stdout.count(b"\n")


def count_patterns(world, files, patterns, **parameters):
    """The result of the program and its digest, without a run."""
    program = Grep(files=str(files), patterns=",".join(patterns), **parameters)
    state = State(world)
    program.declare(state)
    while not program.done(state):
        program.step(state)
        state.step += 1
    return program.result(state), state.digest()


TEXTS = {
    "overlaps": b"a" * 101 + b"\n" + b"abababab aa aaa\naa\n",
    "windows": b"love\r\nwar war\r\n\r\nlovewar\r\n",
    "no newline": b"love war, love-war; _love_ love_ war" * 50,
    "one word": b"love",
    "empty": b"",
    "empty lines": b"\n\n\n",
    "broken": b"love\xff war\xc3 \xe2\x82love \x80war\xc3\xa9 \xf0\x9d\x84war love\xed\xa0\x80\n\xc3",
    "accents": "café CAFÉ Café cafe été ÉTÉ étéa éété été\nÉtéÉté e é éa lové LOVE loveé\n".encode() * 7,
    "signs": "Kelvin \u212aelvin \u017fin sin SIN DİN d\u0131n din DIN Σίσυφος ΣΊΣΥΦΟΣ straße STRASSE\n".encode() * 3,
    "zeros": b"love\0war\0\nwar\0love\n",
}
PATTERNS = ["a", "aa", "aba", "abab", "love", "lov", "ove", "war", "love war", "café", "été", "é", "e", "sin", "din"]
PATTERNS += ["kelvin", "σίσυφος", "straße", "\r", "-", "w", "-war; _l", "nowhere"]
LINES = 3 + 4 + 1 + 1 + 0 + 3 + 2 + 14 + 3 + 2


def write_texts(folder):
    for name, content in TEXTS.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("flags", ["", "i", "w", "iw"])
def test_grep_counts_are_those_of_gnu_grep(alone, tmp_path, flags):
    write_texts(tmp_path)
    result, _ = count_patterns(alone, tmp_path, PATTERNS, words="w" in flags, ignore_case="i" in flags, chunk=100)
    assert result["counts"] == {pattern: gnu(tmp_path, pattern, flags) for pattern in PATTERNS}
    order = [*result["counts"].items()]
    assert order == sorted(order, key=lambda row: (-row[1], row[0]))
    assert (result["bytes"], result["lines"]) == (sum(map(len, TEXTS.values())), LINES)
    broken = sum(text.decode(errors="replace").count("\ufffd") for text in TEXTS.values())
    assert result["broken"] == broken > 0


@pytest.mark.ranks(1, 2, 3, 4, 7)
def test_grep_counts_are_the_same_on_any_number_of_ranks(world, alone, tmp_path):
    if world.rank == 0:
        write_texts(tmp_path)
    world.barrier()
    for words, chunk in [(False, 200), (True, 700), (False, 1 << 28)]:
        parameters = {"words": words, "ignore_case": words, "chunk": chunk}
        result = count_patterns(world, tmp_path, PATTERNS, **parameters)
        check_collective(world, result == count_patterns(alone, tmp_path, PATTERNS, **parameters), f"{parameters}")


def test_grep_line_of_50_mb_needs_little_memory(alone, tmp_path):
    line = b"love and war, " * 3_600_000
    (tmp_path / "line").write_bytes(line[:-1])
    tracemalloc.start()
    try:
        result, _ = count_patterns(alone, tmp_path, ["love", "and war", "and"], words=True)
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()
    assert result["counts"] == {"and": 3_600_000, "and war": 3_600_000, "love": 3_600_000}
    assert (result["lines"], result["bytes"]) == (1, len(line) - 1)


@pytest.mark.parametrize("flags", ["i", "iw"])
def test_grep_counts_in_the_bible_are_those_of_gnu_grep(alone, tmp_path, flags):
    king_james(tmp_path)
    patterns = ["love", "war", "the", "lord", "in the beginning", "jesus", "thou shalt", "i"]
    result, _ = count_patterns(alone, tmp_path, patterns, words="w" in flags, ignore_case=True, chunk=1 << 20)
    assert result["counts"] == {pattern: gnu(tmp_path, pattern, flags) for pattern in patterns}
    assert (result["lines"], result["broken"]) == (31102, 0)


def run(*words, ranks, code=0):
    done = run_anyrank(*words, "--quiet", "--json", ranks=ranks)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_grep_stopped_run_resumes_on_other_ranks(tmp_path):
    (tmp_path / "texts").mkdir()
    write_texts(tmp_path / "texts")
    names = tmp_path / "patterns"
    names.write_text('love\r\nsaid "war",\r\nété\r\n')
    words = ("run", "grep", "--files", tmp_path / "texts", "--patterns-file", names, "--words", "--chunk", 500, "--out")
    whole = run(*words, tmp_path / "whole", ranks=1)
    run(*words, tmp_path / "parts", "--stop-at", 2, ranks=3, code=75)
    parts = run("resume", tmp_path / "parts", ranks=2)
    assert (parts["digest"], parts["steps"]) == (whole["digest"], whole["steps"]) and whole["steps"] > 4
    assert parts["resumed_from"] == 2 and whole["rate"]["unit"] == "bytes/s"
    csv = (tmp_path / "whole/counts.csv").read_bytes()
    love, summer = (gnu(tmp_path / "texts", word, "w") for word in ("love", "été"))
    assert csv.decode() == f'pattern,count\nlove,{love}\nété,{summer}\n"said ""war"",",0\n' and love > summer > 0
    assert (tmp_path / "parts/counts.csv").read_bytes() == csv


@pytest.mark.parametrize("changed", ["texts", "patterns"])
def test_grep_resume_with_changed_input_is_refused(tmp_path, changed):
    (tmp_path / "texts").write_text("love and war\n" * 100)
    (tmp_path / "patterns").write_text("love\nwar\n")
    files = ("--files", tmp_path / "texts", "--patterns-file", tmp_path / "patterns")
    run("run", "grep", *files, "--chunk", 100, "--stop-at", 2, "--out", tmp_path / "run", ranks=1, code=75)
    (tmp_path / changed).write_text("LOVE\nwar\n")
    done = run_anyrank("resume", tmp_path / "run", ranks=2)
    assert done.returncode == 2
    message = f"the {'files' if changed == 'texts' else changed} are not those that the run began with"
    assert done.stderr.count(message) == 1, done.stderr


def test_grep_missing_file_is_refused_once(tmp_path):
    done = run_anyrank("run", "grep", "--files", "none.txt", "--patterns", "a", "--out", tmp_path / "run", ranks=2)
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    assert done.stderr.count("none.txt' cannot be read (No such file or directory)") == 1, done.stderr


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "grep: give either --patterns or --patterns-file"),
        ({"patterns": "a", "patterns_file": "p"}, "grep: give either --patterns or --patterns-file"),
        ({"patterns": "a,,b"}, "pattern 2 of 3 is empty"),
        ({"patterns": "a\nb"}, "has a line end"),
        ({"patterns": "war,love,war"}, "pattern 'war' is given twice"),
        ({"patterns_file": "none"}, "none cannot be read (No such file or directory)"),
        ({"patterns_file": "broken"}, "broken cannot be read (byte 2 is not valid UTF-8)"),
        ({"patterns_file": "empty"}, "pattern 1 of 1 is empty"),
    ],
)
def test_grep_bad_patterns_are_refused(alone, tmp_path, monkeypatch, parameters, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("text")
    (tmp_path / "broken").write_bytes(b"ok\xff")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(UsageError) as refusal:
        Grep(files="text", **parameters).declare(State(alone))
    assert message in str(refusal.value)


def test_grep_empty_files_have_no_counts(alone, tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    result, _ = count_patterns(alone, tmp_path, ["a"])
    assert result == {"counts": {"a": 0}, "lines": 0, "bytes": 0, "broken": 0}
