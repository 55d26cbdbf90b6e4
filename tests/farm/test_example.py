"""The example of farms gives the exact period of the pendulum."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from ranks import run_anyrank, run_command

SWEEP = Path(__file__).parents[2] / "examples" / "sweep.py"


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
