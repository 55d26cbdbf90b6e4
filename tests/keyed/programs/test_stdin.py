"""Standard input as a file: read once, on any number of ranks; a run of it cannot be resumed."""

from __future__ import annotations

import subprocess

import numpy as np
import pyarrow as pa
import pytest
from ranks import anyrank_command

TABLE = "k,x\na,1\nb,5\na,2\n"


def run(text, *words, ranks=None):
    command = anyrank_command(*words, ranks=ranks)
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("ranks", [None, 2])
@pytest.mark.parametrize(
    ("words", "text", "file", "expected"),
    [
        (("groupby", "--table=-", "--by", "k", "--aggregate", "sum(x)"), TABLE, "groups.csv", "k,sum(x)\na,3\nb,5\n"),
        (("wordcount", "--files", "-"), "to be to", "words.csv", "word,count\nto,2\nbe,1\n"),
        (("grep", "--files", "/dev/stdin", "--patterns", "be"), "to be", "counts.csv", "pattern,count\nbe,1\n"),
    ],
)
def test_stdin_is_read_once_and_removed(tmp_path, words, text, file, expected, ranks):
    out = tmp_path / "new" / "o"
    done = run(text, "run", *words, "--out", out, "--quiet", ranks=ranks)
    assert done.returncode == 0, done.stderr
    assert (out / file).read_text() == expected
    assert [entry.name for entry in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("ranks", [None, 2])
def test_stdin_of_megabytes_is_read_whole(tmp_path, ranks):
    words = "run", "wordcount", "--files", "-", "--out", tmp_path / "o", "--quiet"
    done = run("to be or not to be\n" * 300_000, *words, ranks=ranks)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o" / "words.csv").read_text() == "word,count\nbe,600000\nto,600000\nnot,300000\nor,300000\n"


def test_stdin_is_not_awaited_by_a_program_that_does_not_read_it(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(9))
    command = anyrank_command(
        "run", "sort", "--input", tmp_path / "a.npy", "--by", "-", "--out", tmp_path / "o", ranks=2
    )
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.wait(60) == 0, process.stderr.read()
    assert np.load(tmp_path / "o" / "sorted.npy").tolist() == [8, 7, 6, 5, 4, 3, 2, 1, 0]


def test_stdin_cannot_be_resumed_or_empty(tmp_path):
    words = "run", "wordcount", "--files", "-", "--chunk", "3", "--out", tmp_path / "o", "--quiet"
    assert run("to be or not", *words, "--stop-at", 1).returncode == 75
    done = run("to be or not", "resume", tmp_path / "o")
    assert done.returncode == 2 and "a run that reads standard input cannot be resumed" in done.stderr
    done = run("", "run", "wordcount", "--files", "-", "--out", tmp_path / "p")
    assert done.returncode == 2 and done.stderr.count("standard input is empty") == 1


@pytest.mark.parametrize("codec", ["gzip", "bz2", "zstd", "lz4"])
def test_stdin_that_is_compressed_is_decompressed(tmp_path, codec):
    packed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(packed, codec) as stream:
        stream.write(TABLE.encode())
    command = anyrank_command("run", "groupby", "--table=-", "--by", "k", "--out", tmp_path / "o", "--quiet")
    done = subprocess.run(command, input=packed.getvalue().to_pybytes(), capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o" / "groups.csv").read_text() == "k,count\na,2\nb,1\n"
