"""Forty random faults, as benchmarks/faults has a thousand: every run ends on the right digest and leaves nothing."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "benchmarks" / "faults"
COUNT = int(os.environ.get("ANYRANK_FAULTS", "24"))


def test_random_faults_change_no_bit_and_leave_nothing(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    faults = importlib.import_module("faults")
    outcomes = faults.try_all((faults.Case(2026, number) for number in range(COUNT)), jobs=2)
    print("\n".join(faults.table(outcomes)))
    wrong = [f"{one.case}: {one.wrong}\n" + "\n".join(one.log) for one in outcomes if one.wrong]
    assert not wrong, "\n\n".join(wrong)
    assert len({(one.case.kind, one.case.program) for one in outcomes}) >= 10, "of every kind, on both programs"
