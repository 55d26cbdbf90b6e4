"""Types of parameters: what each reads, from Python, TOML and text, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pydantic
import pytest

from anyrank.values import choices, metavar, reader, refusal


def read(kind, value, **bounds):
    return pydantic.TypeAdapter(reader(kind, bounds)).validate_python(value)


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (int, "1e23", 10**23),
        (int, 1e6, 10**6),
        (int, np.int64(3), 3),
        (float, 3, 3.0),
        (float, np.float32(0.5), 0.5),
        (bool, "true", True),
        (Literal[1, 2], "2", 2),
        (Literal["a", "b"], "b", "b"),
        (Path, "/a/b", Path("/a/b")),
        (int | None, "none", None),
        (int | None, None, None),
        (int | None, "3", 3),
        (list[int], "1,2", [1, 2]),
        (list[int], (1, 2), [1, 2]),
        (list[str], "", []),
        (list[float | None] | None, "1,none", [1.0, None]),
        (list[Literal[1, 2]], ["1", 2], [1, 2]),
    ],
    ids=str,
)
def test_reader_good_value_has_its_type(kind, given, expected):
    result = read(kind, given)
    assert result == expected and type(result) is type(expected)
    if isinstance(expected, list):
        assert [*map(type, result)] == [*map(type, expected)]


def test_reader_path_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read(Path, "data/x.csv") == tmp_path / "data/x.csv"
    assert read(list[Path], "a,b") == [tmp_path / "a", tmp_path / "b"]


@pytest.mark.parametrize(
    ("kind", "given", "bounds", "rule"),
    [
        (int, "1e-2", {}, "must be a whole number"),
        (int, "1e999999999", {}, "must be a whole number"),
        (int, True, {}, "must be a whole number"),
        (int, 1234570, {"le": 1234567}, "must be at most 1234567. Use x 1234567 or less."),
        (float, 2, {"le": 1}, "must be at most 1. Use x 1 or less."),
        (float, "nan", {}, "must be finite"),
        (float, float("inf"), {}, "must be finite"),
        (bool, "perhaps", {}, "must be true or false"),
        (str, 3, {}, "must be text"),
        (str, "caf\udce9", {}, "must be text in UTF-8. Rename"),
        (Path, "caf\udce9", {}, "must be text in UTF-8. Rename"),
        (Path, "", {}, "not empty"),
        (Path, 3, {}, "must be a path"),
        (Literal[1, 2], 3, {}, "must be one of 1, 2."),
        (int | None, "x", {}, "must be a whole number"),
        (list[int], 3, {}, "must be a list. Write it as [a, b]."),
        (list[float], "1,0", {"gt": 0}, "must be greater than 0"),
    ],
    ids=str,
)
def test_reader_bad_value_is_refused_with_its_rule(kind, given, bounds, rule):
    with pytest.raises(pydantic.ValidationError) as refused:
        read(kind, given, **bounds)
    assert rule in refusal(refused.value.errors()[0], "x = …", "x")


@pytest.mark.parametrize(
    ("kind", "bounds", "why"),
    [
        (dict, {}, "dict is no type of a parameter. Use int, float"),
        (list, {}, "list is no type of a parameter"),
        (list[list[int]], {}, "no type of a parameter"),
        (int | str, {}, "no type of a parameter"),
        (Literal[True], {}, "no type of a parameter"),
        (None, {}, "no type of a parameter"),
        (str, {"ge": 1}, r"bounds \(ge\) are for numbers"),
        (Literal["none", "x"] | None, {}, "'none' stands for None"),
    ],
    ids=str,
)
def test_reader_type_that_no_parameter_has_is_refused(kind, bounds, why):
    with pytest.raises(TypeError, match=why):
        reader(kind, bounds)


def test_metavar_and_choices_of_types():
    kinds = (int, float | None, Path, list[int], list[str] | None, Literal["a", "b"])
    assert [*map(metavar, kinds)] == ["INTEGER", "NUMBER", "PATH", "INTEGER,…", "TEXT,…", "TEXT"]
    assert choices(list[Literal[1, 2]] | None) == ("1", "2") and choices(int) == ()
