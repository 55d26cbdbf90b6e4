"""The examples of farms give known numbers, the same on any number of ranks."""

from __future__ import annotations

import csv
import importlib
import json
import re
import sys
from pathlib import Path

import pytest
from farm.runs import digest, farm, rows_of
from ranks import run_anyrank, run_command

EXAMPLES = Path(__file__).parents[2] / "examples"
SWEEP = EXAMPLES / "sweep.py"


@pytest.fixture
def example(monkeypatch):
    """Import an example by name."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module


def run_on(tmp_path, ranks, *words, **options):
    """Run a farm on each of these numbers of ranks; returns its results, which must be the same."""
    runs = [tmp_path / f"run-{number}" for number in ranks]
    for number, run in zip(ranks, runs, strict=True):
        farm(*words, out=run, ranks=number, **options)
    assert len({(run / "results.csv").read_bytes() for run in runs}) == len({*map(digest, runs)}) == 1
    return rows_of(runs[0] / "results.csv")


def test_example_sweep_finds_the_exact_period(tmp_path):
    table = tmp_path / "amplitudes.csv"
    table.write_text("amplitude,steps\n" + "".join(f"{0.1 * k},500\n" for k in range(1, 21)))
    done = run_anyrank("farm", f"{SWEEP}:period", "--table", table, "--out", tmp_path / "run", ranks=2)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run" / "results.csv").open(newline="") as file:
        errors = [float(row["error"]) for row in csv.DictReader(file)]
    assert len(errors) == 20 and 0 < max(errors) < 1e-6  # of second order: 16 times that of 2000 steps


def test_example_sweep_as_a_script(tmp_path):
    done = run_command(sys.executable, SWEEP, cwd=tmp_path)
    assert done.returncode == 0 and "largest error of 200 periods: 2" in done.stdout, done.stderr


def test_example_fibonacci_is_the_sequence(tmp_path):
    words = (f"{EXAMPLES}/fibonacci.py:fib", "--table", EXAMPLES / "fibonacci.csv", "--cost", "n")
    found = {int(row["n"]): int(row["value"]) for row in run_on(tmp_path, (1, 2, 3), *words)}
    a, b = 0, 1
    for n in range(28):
        assert found.get(n, a) == a
        a, b = b, a + b
    assert max(found) == 27 and found[27] == 196418


def test_example_currency_rates_of_a_busy_service(tmp_path, example):
    rates = example("currency_rates")
    with rates.serve() as address:
        (tmp_path / "t.csv").write_text("currency,url\n" + "".join(f"{name},{address}\n" for name in rates.RATES))
        words = (f"{EXAMPLES}/currency_rates.py:rate", "--table", tmp_path / "t.csv", "--concurrency", 10)
        words += ("--per-second", 100, "--attempts", 3, "--backoff", 0.05)
        for ranks in (1, 2):
            rates.REQUESTS.clear()
            farm(*words, out=tmp_path / f"{ranks}", ranks=ranks)
            assert dict(rates.REQUESTS) == dict.fromkeys(rates.RATES, 3)
            assert {row["attempts"] for row in rows_of(tmp_path / f"{ranks}" / "tasks.csv")} == {"3"}
    assert {row["currency"]: float(row["value"]) for row in rows_of(tmp_path / "1" / "results.csv")} == rates.RATES
    assert (tmp_path / "1" / "results.csv").read_bytes() == (tmp_path / "2" / "results.csv").read_bytes()
    assert digest(tmp_path / "1") == digest(tmp_path / "2")


def test_example_calibration_finds_the_rates(example):
    calibration = example("calibration")
    one, two = calibration.fit(1), calibration.fit(2)
    assert one.x.tobytes() == two.x.tobytes() and one.nfev == two.nfev > 100
    assert one.x == pytest.approx(calibration.TRUE, rel=0.02)


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("fibonacci", "fib(27) = 196418"),
        ("currency_rates", "1 EUR = 162.23 JPY"),
        ("calibration", "true: 0.7, 0.2"),
    ],
)
def test_example_as_a_script(name, printed, tmp_path):
    done = run_command(sys.executable, EXAMPLES / f"{name}.py", cwd=tmp_path)
    assert done.returncode == 0 and printed in done.stdout, done.stderr


def test_example_merge_sort_sorts(tmp_path, example):
    table = tmp_path / "sort.csv"
    assert run_command(sys.executable, EXAMPLES / "merge_sort.py", table).returncode == 0
    words = (f"{EXAMPLES}/merge_sort.py:sort", "--table", table, "--id", "part", "--after", "halves")
    rows = run_on(tmp_path, (1, 2, 3), *words)
    assert len(rows) == 15 and rows[-1]["id"] == "0-8000"
    assert json.loads(rows[-1]["value"]) == sorted(example("merge_sort").numbers(0, 8000))


def test_example_word_frequencies_adds_up_files(tmp_path):
    texts = {"a.txt": "To be, or not to be", "b.txt": "be", "c d.txt": ""}
    folder, table = tmp_path / "texts", tmp_path / "words.jsonl"
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)
    assert run_command(sys.executable, EXAMPLES / "word_frequencies.py", folder, table).returncode == 0
    words = (f"{EXAMPLES}/word_frequencies.py:count", "--table", table, "--id", "file", "--after", "parts")
    rows = run_on(tmp_path, (1, 2, 3), *words)
    assert [json.loads(row["value"]) for row in rows[2:]] == [[], [["be", 3], ["to", 2], ["not", 1], ["or", 1]]]
    assert re.findall("a.txt|b.txt|c d.txt", rows[-1]["parts"]) == [*texts]
