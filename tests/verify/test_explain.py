"""Causes and locations of differences, for outcomes and files that the tests construct."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest

from anyrank.layout import even_cuts
from anyrank.runtime.folder import RunFolder
from anyrank.verify import locate
from anyrank.verify.case import PERTURBATIONS, REFERENCE, Case, causes
from anyrank.verify.explain import Finding, explain, first_difference
from anyrank.verify.matrix import CaseMatrix
from anyrank.verify.pattern import BORDERS, BOTH, EVERYWHERE, LAST_DIGITS, NOT_THE_FIRST, WHOLE_BLOCK, pattern
from anyrank.verify.regions import parts_of
from anyrank.verify.report import write_junit
from anyrank.verify.runner import FAILED, IMPOSSIBLE, SAME, Outcome

RIGHT = {0: {"x": "0"}, 1: {"x": "1"}}
ONE, TWO, THREE = Case(), Case((2,)), Case((3,))


def outcome(case: Case, bits: str = "1", verdict: str = SAME) -> Outcome:
    trace = {} if verdict != SAME else {0: {"x": "0"}, 1: {"x": bits}}
    return Outcome(case, RunFolder(Path("run")), verdict, "bad\x1b luck", trace)


def explain_outcomes(*others: Outcome) -> list[tuple[str, Case, Case, int]]:
    result = explain([outcome(REFERENCE), *others])
    return [(finding.cause, finding.nearest.case, finding.other.case, len(finding.seen)) for finding in result]


def test_causes_of_two_cases_are_listed():
    assert causes(ONE, ONE) == []
    assert causes(REFERENCE, ONE) == ["body"]
    assert causes(ONE, Case((3,), split="columns")) == ["ranks"]  # one rank has no split
    assert causes(Case((4,), split="rows"), Case((4,), split="bricks")) == ["split"]
    assert causes(ONE, Case((1, 1), (3,))) == ["restart"]
    assert causes(ONE, Case((1, 1), extended=3)) == ["extended"]
    assert causes(ONE, Case((1, 2), (3,), body="numba", changed="clock")) == ["clock", "body", "restart", "ranks"]


def test_explain_nearest_correct_case_gives_the_cause():
    bricks, rows = Case((4,), split="bricks"), Case((4,), split="rows")
    clock, stopped = Case((2,), changed="clock"), Case((1, 2), (1,))
    assert explain_outcomes(outcome(ONE), outcome(TWO)) == []
    assert explain_outcomes(outcome(ONE), outcome(TWO, "2"), outcome(THREE, "3")) == [("ranks", ONE, TWO, 1)]
    assert explain_outcomes(outcome(ONE), outcome(rows), outcome(bricks, "2")) == [("split", rows, bricks, 0)]
    assert explain_outcomes(outcome(ONE, "2"), outcome(TWO, "2")) == [("body", REFERENCE, ONE, 1)]
    assert explain_outcomes(outcome(ONE), outcome(TWO), outcome(clock, "2")) == [("clock", TWO, clock, 0)]
    assert explain_outcomes(outcome(ONE), outcome(TWO), outcome(stopped, "2")) == [("restart", ONE, stopped, 0)]


def test_explain_cause_is_reported_once():
    clock, stopped = Case((2,), changed="clock"), Case((1, 2), (1,))
    wrong = [outcome(TWO, "2"), outcome(clock, "2"), outcome(stopped, "3")]
    assert explain_outcomes(outcome(ONE), *wrong) == [("ranks", ONE, TWO, 2)]
    both = [outcome(TWO, "2"), outcome(clock, "3")]
    assert explain_outcomes(outcome(ONE), *both) == [("clock", TWO, clock, 0), ("ranks", ONE, TWO, 0)]


def test_explain_separates_failures_from_differences():
    assert explain_outcomes(outcome(ONE), outcome(TWO, verdict=FAILED), outcome(THREE, "3")) == [
        ("ranks", ONE, TWO, 0),
        ("ranks", ONE, THREE, 0),
    ]
    assert explain_outcomes(outcome(ONE), outcome(TWO, verdict=IMPOSSIBLE)) == []


def test_explain_body_that_fails_is_last():
    shim = outcome(Case((2,), body="shim"), verdict=FAILED)
    causes_found = [cause for cause, *_ in explain_outcomes(outcome(ONE), outcome(TWO), outcome(THREE, "3"), shim)]
    assert causes_found == ["ranks", "body"]


def test_explain_chance_is_reported_first_and_alone():
    again = Case((2,), changed="again")
    wrong = [outcome(TWO, "2"), outcome(again, "3"), outcome(THREE, "4")]
    assert explain_outcomes(outcome(ONE), *wrong) == [("again", TWO, again, 2)]


def test_first_difference_of_traces_gives_step_and_members():
    assert first_difference(RIGHT, RIGHT) is None
    assert first_difference(RIGHT, {**RIGHT, 1: {"x": "2"}}) == (1, ["x"])
    assert first_difference(RIGHT, {0: RIGHT[0]}) == (1, [])
    assert first_difference({0: {"x": "1", "y": "1", "z": "1"}}, {0: {"x": "1", "z": "2"}}) == (0, ["y", "z"])


VALUES = [
    (
        np.array([1.0, np.nan, 0.0]),
        np.array([1.0, np.nan, -0.0]),
        (2,),
        ("0.0  0x0000000000000000", "-0.0  0x8000000000000000"),
    ),
    (np.array([[1, 2], [3, 4]], np.int16), np.array([[1, 2], [9, 4]], np.int16), (1, 0), ("3  0x0003", "9  0x0009")),
    (
        np.array([1 + 2j]),
        np.array([1 + 3j]),
        (0,),
        (f"(1+2j)  0x3ff{0:013x}4{0:015x}", f"(1+3j)  0x3ff{0:013x}4008{0:012x}"),
    ),
    (np.array([True, True]), np.array([True, False]), (1,), ("True  0x01", "False  0x00")),
    (np.float32(0.1), np.float32(0.2), (), ("0.1  0x3dcccccd", "0.2  0x3e4ccccd")),
]


def write(path: Path, values: np.ndarray, grid: tuple[int, ...]) -> Path:
    with h5py.File(path, "w") as file:
        file["fields/x" if np.ndim(values) else "scalars/x"] = values
        if np.ndim(values):
            cuts = [even_cuts(n, parts) for n, parts in zip(values.shape, grid, strict=True)]
            file["fields/x"].attrs.update({"ranks": grid, "borders": np.concatenate(cuts)})
    return path


@pytest.mark.parametrize(("a", "b", "index", "texts"), VALUES)
def test_compare_values_bit_by_bit(tmp_path, a, b, index, texts):
    grid = (1,) * np.ndim(a)
    words, values = locate.compare(write(tmp_path / "a", a, grid), write(tmp_path / "b", b, grid), ["x", "y"])
    many = f"[{', '.join(map(str, index))}] (and in y); 1 of {np.size(a)} elements differ" if index else " (and in y)"
    owner = "rank 0 of " + "x".join("1" for _ in grid) if index else "all ranks"
    assert words == "x" + many and values == tuple(f"{text}  owned by {owner}" for text in texts)


def test_compare_large_field_in_blocks_gives_owners_and_count(tmp_path, monkeypatch):
    monkeypatch.setattr(locate, "_BLOCK", 20)
    a = np.zeros((17, 10))
    b = a.copy()
    b[9, 6] = b[9, 7] = b[16, 0] = 1
    words, values = locate.compare(write(tmp_path / "a", a, (3, 1)), write(tmp_path / "b", b, (2, 2)), ["x"])
    assert words == "x[9, 6]; 3 of 170 elements differ"
    assert values[0].endswith("owned by rank 1 of 3x1") and values[1].endswith("owned by rank 3 of 2x2")


def test_compare_missing_member_or_other_shape_is_described(tmp_path):
    a, b = write(tmp_path / "a", np.zeros(3), (1,)), write(tmp_path / "b", np.zeros(4), (1,))
    with h5py.File(b, "a") as file:
        file["scalars/y"] = 1
    expected = "x: float64 of shape (3,) in one and float64 of shape (4,) in the other"
    assert locate.compare(a, b, ["x"]) == (expected, ())
    assert locate.compare(a, b, ["y"]) == ("y: missing in one and int64 of shape () in the other", ())


class RepeatedRunner:
    """A runner whose cases return the given digests when they run again."""

    def __init__(self, folder: Path, *bits: str):
        self.folder, self.bits, self.until = folder, iter(bits), []

    def run(self, case: Case, until: int) -> Outcome:
        self.until.append(until)
        again = Outcome(case, RunFolder(self.folder / str(len(self.until))))
        again.trace = {step: {"x": bit} for step, bit in enumerate(next(self.bits))}
        again.run.checkpoints.mkdir(parents=True)
        write(again.checkpoint(until), np.array([float(again.trace[until]["x"])]), (1,))
        return again


def locate_difference(tmp_path: Path, *bits: str) -> tuple[list[int], str]:
    first, other = outcome(ONE), outcome(TWO)
    first.trace, other.trace = ({step: {"x": bit} for step, bit in enumerate(text)} for text in ("0123", "0124"))
    runner = RepeatedRunner(tmp_path, *bits)
    words, _ = locate.locate(runner, Finding("ranks", first, other))
    return runner.until, words


def test_locate_difference_by_chance_is_followed_and_named(tmp_path):
    where = "First at step {}, in x[0]; 1 of 1 elements differ"
    assert locate_difference(tmp_path / "steady", "0123", "0124") == ([3, 3], where.format(3))
    other_values = locate_difference(tmp_path / "values", "0123", "0125")
    assert other_values == ([3, 3], where.format(3) + locate.CHANCE)
    earlier = locate_difference(tmp_path / "earlier", "0123", "0923", "0123", "0923")
    assert earlier == ([3, 3, 1, 1], where.format(1) + locate.CHANCE)
    vanished = locate_difference(tmp_path / "gone", *["0123"] * 8)
    assert vanished == ([3] * 8, "First at step 3, in x, but not when repeated" + locate.CHANCE)


@pytest.mark.parametrize(("again", "reproducible"), [((SAME, FAILED), True), ((SAME, SAME), False)])
def test_locate_failure_by_chance_is_not_reproducible(again, reproducible):
    """A failure that a perturbation seems to cause is repeated; others may take long to fail."""
    verdicts = iter(again)
    runner = SimpleNamespace(run=lambda case: outcome(case, verdict=next(verdicts)))
    memory = Finding("memory", outcome(TWO), outcome(Case((2,), changed="memory"), verdict=FAILED))
    assert locate.locate(runner, memory) is None and memory.reproducible is reproducible
    ranks = Finding("ranks", outcome(ONE), outcome(TWO, verdict=FAILED))
    assert locate.locate(runner, ranks) is None and ranks.reproducible


def test_plan_halo_steps_only_if_the_program_allows_them():
    for quick, ranks in ((True, {3}), (False, {3, 4})):
        cases = CaseMatrix(quick=quick, deep_halos=True).rest(9, 2)
        assert {case.ranks[0] for case in cases if case.changed == "halo steps"} == ranks
        assert not [case for case in CaseMatrix(quick=quick).rest(9, 2) if case.changed == "halo steps"]


def test_plan_covers_ranks_splits_bodies_and_perturbations():
    full, quick = CaseMatrix(), CaseMatrix(quick=True)
    cases = full.first() + full.rest(9, 2)
    assert len(cases) == len(set(cases)) and cases[0] == REFERENCE
    assert {case.ranks for case in cases if not case.stops} == {(1,), (2,), (3,), (4,)}
    assert {case.changed for case in cases} == {"", "again", "timing", "parts", "weights", *PERTURBATIONS}
    assert {case.split for case in cases if case.ranks == (4,)} == {"auto", "rows", "columns", "bricks"}
    assert {case.body for case in cases} == {"auto", "reference", "numba", "cython", "cupy", "shim", "shim,auto"}
    assert {(case.ranks, case.stops) for case in cases if case.stops} == {
        ((2, 2), (4,)),
        ((1, 4, 2), (3, 6)),
        ((4, 1), (0,)),
    }
    assert len(quick.first() + quick.rest(9, 2)) < len(cases) / 2 + 2
    assert not [case for case in full.rest(0, 2) if case.stops], "nothing can be stopped before it ends"
    assert not [case for case in full.rest(9, 2) if case.extended]
    for quick_too in (False, True):
        matrix = CaseMatrix(quick=quick_too, extendable=True)
        assert [case for case in matrix.rest(9, 2) if case.extended] == [Case((1, 2), extended=4)]
        assert not [case for case in matrix.rest(1, 2) if case.extended], "one step has no fewer"
    assert {case.split for case in full.rest(9, 1)} == {"auto"}, "one axis can be cut in one way"
    assert {case.body for case in CaseMatrix(bodies=("numba",)).rest(9, 1)} == {"auto", "numba"}
    assert {case.split for case in CaseMatrix(splits=("columns",), quick=True).rest(9, 2)} == {"auto", "columns"}


@pytest.mark.parametrize("ranks", [(1,), (2,), (1, 2, 3, 4)])
def test_plan_quick_cuts_blocks_into_parts(ranks):
    """Also on one rank, and if one rank is not in `--ranks`."""
    quick = CaseMatrix(ranks, quick=True).rest(9, 1)
    assert {case.ranks[0] for case in quick if case.changed == "parts"} == {1, max(n for n in ranks if n != 4)}


def test_parts_of_cover_a_region_once():
    """Every region has a part of one row; larger regions have several unequal parts, not in the order of memory."""
    for shape in ((0,), (1,), (2,), (7,), (12, 9), (1, 5), (3, 4, 24)):
        seen = np.zeros(shape, int)
        parts = parts_of(tuple(slice(0, n) for n in shape))
        for part in parts:
            seen[part] += 1
        assert (seen == 1).all()
    shapes = [tuple(s.stop - s.start for s in part) for part in parts_of((slice(-2, 10), slice(0, 9)))]
    assert sorted(shapes) == sorted((m, n) for m in (1, 3, 8) for n in (1, 2, 6))
    starts = [tuple(s.start for s in part) for part in parts_of((slice(-2, 10), slice(0, 9)))]
    assert starts != sorted(starts) and starts != sorted(starts, reverse=True) and min(starts) == (-2, 0)


def test_plan_perturbed_case_has_one_that_differs_only_in_that():
    for ranks in ((1,), (2,), (4,), (1, 2), (3, 4), (1, 2, 3, 4)):
        for quick in (True, False):
            matrix = CaseMatrix(ranks, quick=quick, deep_halos=True)
            cases = matrix.first() + matrix.rest(9, 2)
            for case in (case for case in cases if case.changed):
                assert any(causes(case, other) == [case.changed] for other in cases), case


def test_junit_counts_and_is_well_formed(tmp_path):
    outcomes = [outcome(REFERENCE), outcome(ONE), outcome(TWO, "2"), outcome(THREE, verdict=FAILED)]
    outcomes.append(outcome(Case((9,)), verdict=IMPOSSIBLE))
    write_junit(tmp_path / "j.xml", "words", outcomes, {outcomes[2]: "FOUND: <ranks>"})
    suite = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert [suite.get(name) for name in ("tests", "failures", "skipped")] == ["5", "2", "1"]
    assert [case.find("failure").text for case in suite.findall("testcase[failure]")] == ["FOUND: <ranks>", "bad? luck"]
    assert suite.find("testcase[5]/skipped").get("message") == "not possible: bad? luck"


@pytest.mark.parametrize(
    ("differing", "borders", "expected"),
    [
        (np.s_[4:6], [[0, 5, 12]], BORDERS),
        (np.s_[[0, 4, 5, 11]], [[0, 5, 12]], BORDERS),
        (np.s_[5:], [[0, 5, 12]], NOT_THE_FIRST),
        (np.s_[11:], [[0, 5, 12]], NOT_THE_FIRST),
        (np.s_[6:7], [[0, 2, 5, 7, 10]], BOTH),  # every element is within two of a border
        (np.s_[:1], [[0, 5, 12]], ""),
        (np.s_[:4], [[0, 4, 9]], WHOLE_BLOCK),  # every element is within two of a border
        (np.s_[:], [[0, 5, 12]], EVERYWHERE),
        (np.s_[:], [[0, 12]], ""),
        (np.s_[2:9], [[0, 5, 12]], ""),
        (np.s_[:, 9:11], [[0, 12], [0, 10, 20]], BORDERS),
        (np.s_[:, 10:], [[0, 12], [0, 10, 20]], NOT_THE_FIRST),
    ],
)
def test_pattern_of_differing_elements_suggests_a_cause(tmp_path, differing, borders, expected):
    values = np.ones([cut[-1] for cut in borders])
    paths = tmp_path / "a.h5", tmp_path / "b.h5"
    for path in paths:
        with h5py.File(path, "w") as file:
            dataset = file.create_dataset("fields/T", data=values)
            dataset.attrs["ranks"] = [len(cut) - 1 for cut in borders]
            dataset.attrs["borders"] = np.concatenate(borders)
        values = values.copy()
        values[differing] = 2.0
    assert pattern(*paths, "T") == expected


def test_pattern_of_a_factor_is_everywhere(tmp_path):
    """Half of the elements are 0, which no factor changes."""
    values = np.arange(12.0) % 2
    paths = write(tmp_path / "a", values, (2,)), write(tmp_path / "b", values * 1.5, (2,))
    assert pattern(*paths, "x") == EVERYWHERE


@pytest.mark.parametrize(
    ("change", "differing", "expected"),
    [
        (4e-15, np.s_[2:10], LAST_DIGITS),
        (4e-15, np.s_[2:7], ""),
        *((change, np.s_[2:10], "") for change in (1e-3, np.inf, np.nan)),
    ],
)
def test_pattern_of_last_digits_suggests_a_sum(tmp_path, change, differing, expected):
    """Most elements differ, or half of them, in both blocks."""
    values = np.arange(12.0)
    paths = write(tmp_path / "a", values, (2,)), tmp_path / "b"
    values[differing] += change
    assert pattern(paths[0], write(paths[1], values, (2,)), "x") == expected


def test_explain_split_belongs_to_the_finding_of_ranks():
    bricks, rows = Case((4,), split="bricks"), Case((4,), split="rows")
    found = explain_outcomes(outcome(ONE), outcome(TWO, "2"), outcome(rows), outcome(bricks, "3"))
    assert found == [("ranks", ONE, TWO, 1)]


def test_explain_weights_belong_to_the_finding_of_ranks():
    weights = Case((3,), changed="weights")
    assert explain_outcomes(outcome(ONE), outcome(THREE, "3"), outcome(weights, "4")) == [("ranks", ONE, THREE, 1)]
    assert explain_outcomes(outcome(ONE), outcome(THREE), outcome(weights, "4")) == [("weights", THREE, weights, 0)]
