"""Random faults, of which benchmarks/faults has a thousand: every run ends with the right digest and leaves nothing.

The first fault of every kind on each program; with ANYRANK_FAULTS=40, the first 40 of all.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "faults"
COUNT = int(os.environ.get("ANYRANK_FAULTS", "0"))


def choose_cases(faults: Any) -> list[Any]:
    """The cases to run."""
    if COUNT:
        return [faults.Case(2026, number) for number in range(COUNT)]
    first: dict[tuple[str, str], Any] = {}
    for number in range(200):
        case = faults.Case(2026, number)
        first.setdefault((case.kind, case.program), case)
    assert len(first) == len(faults.KINDS) * len(faults.PROGRAMS)
    return list(first.values())


@pytest.mark.slow
def test_faults_random_ones_change_no_bit_and_leave_nothing(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    faults = importlib.import_module("faults")
    outcomes = faults.try_all(choose_cases(faults), jobs=2)
    print("\n".join(faults.table(outcomes)))
    wrong = [f"{outcome.case}: {outcome.wrong}\n" + "\n".join(outcome.log) for outcome in outcomes if outcome.wrong]
    assert not wrong, "\n\n".join(wrong)
    assert len({(outcome.case.kind, outcome.case.program) for outcome in outcomes}) >= 10, "full disks need root"
