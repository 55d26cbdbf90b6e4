"""Agreement of ranks: random tables in any format, on any rank, give one digest and the answer of plain Python.

`agreement.py` does the same with any number of tables, in more ranks, and beside DuckDB.
"""

from __future__ import annotations

from copy import deepcopy

import pytest
from keyed import agreement
from keyed.random_tables import Case
from keyed.tables.samples import on_root
from ranks import check_collective

from anyrank.world import World

CASES = 4


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize("first", [0, *(pytest.param(100 * k, marks=pytest.mark.slow) for k in range(1, 6))])
def test_agreement_random_tables_give_the_answer_of_python(world, tmp_path, first):
    """Cases with odd numbers are stopped and resumed on other ranks."""
    worlds = [World(world.comm.Split(int(world.rank >= size))) for size in range(1, world.size + 1)]
    on_root(world, (tmp_path / "tables").mkdir)
    for number in range(first, first + CASES):
        on_root(world, lambda number=number: Case(number).write(tmp_path / "tables" / str(number)))
        results = {}
        for size in (1, world.size):
            folder = tmp_path / f"{number} on {size}"
            found = agreement.run_case(worlds[:size], number, tmp_path / "tables", folder) if world.rank < size else {}
            results[size] = world.bcast(found)
        wrong = agreement.check(number, results, None)
        check_collective(world, not wrong, f"case {number} ({Case(number).formats}): {wrong}")


@pytest.fixture(scope="module")
def correct():
    groups = Case(8).answer()
    return {ranks: {"digest": 1, "csv": "a", "groups": groups} for ranks in (1, 2)}


@pytest.mark.parametrize("what", ["digest", "csv", "groups", "error"])
def test_agreement_check_names_what_differs(correct, what):
    results = deepcopy(correct)
    assert agreement.check(8, results, None) == ""
    if what == "error":
        results[2] = {"error": "a mistake"}
    else:
        results[2][what] = 2
    if what == "groups":
        results[1]["groups"][0][-1] = 2
    message = {"groups": "is not the answer of Python", "error": "2 ranks: a mistake"}
    assert message.get(what, f"another {what} on 2 ranks") in agreement.check(8, results, None)


def test_agreement_with_duckdb_finds_another_number(correct):
    duckdb = pytest.importorskip("duckdb")
    groups = deepcopy(correct[1]["groups"])
    assert agreement.differs_from_duckdb(duckdb, Case(8), groups) == ""
    groups[0][-1] = 2
    assert "DuckDB" in agreement.differs_from_duckdb(duckdb, Case(8), groups)
    assert "DuckDB" in agreement.differs_from_duckdb(duckdb, Case(8), groups[1:])
