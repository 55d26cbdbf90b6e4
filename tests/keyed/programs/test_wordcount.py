"""Word count: the answer of a Counter, on any number of ranks, stopped and resumed, also for unusual texts."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
from ranks import run_anyrank

BOOK = Path("/usr/share/common-licenses/GPL-3")


def run(*words, ranks=None, status=0):
    done = run_anyrank("run", "wordcount", *words, "--json", ranks=ranks)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) if status in (0, 75) else done.stderr


def counts(out: Path) -> list[tuple[str, int]]:
    with (out / "words.csv").open(newline="") as file:
        return [(row["word"], int(row["count"])) for row in csv.DictReader(file)]


def expected(texts, fold=False, rule="space") -> list[tuple[str, int]]:
    """By count, then by bytes; invalid UTF-8 as escapes."""
    counter: Counter[bytes] = Counter()
    for text in texts:
        whole = text.decode(errors="surrogateescape")
        for word in whole.split() if rule == "space" else re.findall(r"\w+", whole):
            counter[(word.casefold() if fold else word).encode(errors="surrogateescape")] += 1
    order = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    return [(word.decode(errors="backslashreplace"), n) for word, n in order]


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> tuple[Path, list[bytes]]:
    """A folder of texts: Zipf's law, one line of words, one word, an empty file, CRLF, broken UTF-8, many scripts."""
    draws = (np.random.default_rng(4).zipf(1.2, 40_000) % 9_000).tolist()
    bodies = [
        b"\n".join(b" ".join(b"w%x" % n for n in draws[k : k + 11]) for k in range(0, 40_000, 11)),
        b" ".join(b"Line%d" % (n % 50) for n in draws[:9000]),
        b"word" * 5000,
        b"",
        b"one\r\ntwo  two\r\n\r\n\tThree ONE One\r\n",
        b"broken \xff\xfe bro\xe2\x80ken \xe2\x80\x83x \xc3",
        "Straße STRASSE strasse Ünï ünï\u00a0ÜNÏ\u3000日本語 日本 Κόσμος κόσμοσ".encode() * 30,
    ]
    folder = tmp_path_factory.mktemp("texts")
    for k, body in enumerate(bodies):
        (folder / f"{k}.txt").write_bytes(body)
    return folder, bodies


@pytest.mark.parametrize(("rule", "fold"), [("space", False), ("space", True), ("unicode", True)])
def test_wordcount_answer_is_that_of_a_counter(texts, tmp_path, rule, fold):
    folder, bodies = texts
    words = ("--files", folder, "--rule", rule, "--fold" if fold else "--no-fold", "--out", tmp_path / "run")
    run(*words, "--chunk", 100_000, ranks=2)
    assert counts(tmp_path / "run") == expected(bodies, fold, rule)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["words"] == sum(n for _, n in expected(bodies, fold, rule))
    assert result["broken"] == sum(body.decode(errors="replace").count("\ufffd") for body in bodies) == 4
    assert [*result["top"].items()] == expected(bodies, fold, rule)[:10]
    with h5py.File(tmp_path / "run" / "words.h5") as file:
        sizes = file["word_size"][:].tolist()
        assert file["count"][:].tolist() == [n for _, n in expected(bodies, fold, rule)]
        assert sum(sizes) == len(file["word"]) and max(sizes) == 20_000


def test_wordcount_files_are_the_same_on_any_ranks_and_chunks(texts, tmp_path):
    folder, bodies = texts
    result = set()
    for ranks, chunk in ((1, 1 << 30), (2, 50_000), (3, 50_000), (4, 7_777), (7, 50_000)):
        out = tmp_path / str(ranks)
        summary = run("--files", folder, "--chunk", chunk, "--out", out, ranks=ranks)
        files = tuple((out / name).read_bytes() for name in ("words.csv", "words.h5"))
        result.add((summary["digest"], *files))
    out = tmp_path / "stopped"
    assert run("--files", folder, "--chunk", 50_000, "--stop-at", 2, "--out", out, ranks=3, status=75)["steps"] == 2
    done = run_anyrank("resume", out, ranks=2)
    assert done.returncode == 0 and "resumed at step 2" in done.stderr
    summary = json.loads((out / "summary.json").read_text())
    result.add((summary["digest"], (out / "words.csv").read_bytes(), (out / "words.h5").read_bytes()))
    assert len(result) == 1
    assert counts(out) == expected(bodies)


def test_wordcount_bodies_and_little_memory_give_the_same(texts, tmp_path):
    folder, _ = texts
    files = ("--files", folder / "[3-6].txt")
    result = {
        run(*files, *words, "--out", tmp_path / str(k), ranks=2)["digest"]
        for k, words in enumerate([("--body", "reference"), ("--body", "cython"), ("--body", "shim", "--check")])
    }
    big = tmp_path / "big.txt"
    big.write_bytes(b" ".join(b"word-%d" % (n % 60_000) for n in range(300_000)))
    tables = [
        run("--files", big, *words, "--chunk", 1 << 20, "--out", tmp_path / f"big{len(words)}", ranks=2)["digest"]
        for words in [(), ("--memory-limit", "230MB")]
    ]
    assert len(result) == len({*tables}) == 1


def test_wordcount_of_a_real_book_is_that_of_a_counter(tmp_path):
    """An independent text, available on Debian."""
    if not BOOK.exists():
        pytest.skip(f"no {BOOK}")
    run("--files", BOOK, "--fold", "--rule", "unicode", "--out", tmp_path / "run", ranks=3)
    assert counts(tmp_path / "run") == expected([BOOK.read_bytes()], True, "unicode")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--files", "no-such-file.txt"), "no-such-file.txt"),
        (("--files", "{empty}"), "has no files, or only hidden ones"),
        ((), "--files is required: files, folders and globs"),
        (("--files", "x", "--rule", "letters"), "--rule letters must be"),
        (("--files", "x", "--chunk", 0), "--chunk 0 must be at least 1"),
    ],
)
def test_wordcount_bad_input_is_refused_once_before_any_work(tmp_path, refused, words, message):
    """Two ranks check errors that ranks detect; wrong parameters never reach ranks."""
    (tmp_path / "empty").mkdir()
    words = [str(word).format(empty=tmp_path / "empty") for word in words]
    if "must" in message or "required" in message:
        done = refused("run", "wordcount", *words, "--out", tmp_path / "run")
        assert done.returncode == 2
        error = done.stderr
    else:
        error = run(*words, "--out", tmp_path / "run", ranks=2, status=2)
    assert error.count(message) == 1 and not (tmp_path / "run" / "checkpoints").exists()


def test_wordcount_resume_with_changed_files_is_refused(tmp_path):
    text = tmp_path / "a.txt"
    text.write_bytes(b"a b c d e f")
    out = tmp_path / "run"
    run("--files", text, "--chunk", 4, "--stop-at", 1, "--out", out, status=75)
    text.write_bytes(b"a b c d e f g")
    done = run_anyrank("resume", out, ranks=2)
    assert done.returncode == 2 and "the files are not those that the run began with" in done.stderr
    text.write_bytes(b"a b c d e f")
    assert run_anyrank("resume", out, ranks=2).returncode == 0


def test_wordcount_example_counts_and_resumes_in_another_folder(texts, tmp_path):
    folder, bodies = texts
    example = Path(__file__).parents[3] / "examples" / "wordcount.py"
    done = run_anyrank("run", example, "--files", folder, "--out", tmp_path / "run", ranks=3)
    assert done.returncode == 0, done.stderr
    words = Counter(word.strip(b".,;:!?()'\"").lower() for body in bodies for word in body.split())
    with (tmp_path / "run" / "words.csv").open(newline="") as file:
        rows = [(row["word"].encode(), int(row["count"]), int(row["longest"])) for row in csv.DictReader(file)]
    valid = {word for word in words if b"\\x" not in word.decode(errors="backslashreplace").encode()}
    assert {row for row in rows if row[0] in valid} == {(word, words[word], len(word)) for word in valid}
    assert [n for _, n, _ in rows] == sorted(words.values(), reverse=True)
    stopped = ("--files", "2.txt", "--chunk", 9000, "--stop-at", 1, "--out", tmp_path / "stopped")
    assert run_anyrank("run", "wordcount", *stopped, cwd=folder).returncode == 75
    assert run_anyrank("resume", tmp_path / "stopped", ranks=2, cwd=tmp_path).returncode == 0
    assert counts(tmp_path / "stopped") == [("word" * 5000, 1)]
