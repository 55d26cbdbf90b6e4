"""The docstrings of what users import: their examples run, and they describe parameters and results (numpydoc)."""

from __future__ import annotations

import doctest
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import anyrank
from anyrank.member import Member

#: What examples may use, beside what they import.
NAMES = {name: getattr(anyrank, name) for name in anyrank.__all__} | {"np": np, "Path": Path}
SECTION = r"^(\w+)\n-+\n"
#: Methods that only the runtime calls need one line, and so do those that a protocol describes.
ONE_LINE = ("(for the runtime)", "See `Member`")


def public_objects() -> Iterator[tuple[str, Any]]:
    """Yield the public classes and functions with their dotted names: those of anyrank, of its modules, and Member."""
    yield "Member", Member
    for name, value in ((name, getattr(anyrank, name)) for name in anyrank.__all__):
        if not isinstance(value, ModuleType):
            yield name, value
            continue
        own = [member for member, item in vars(value).items() if getattr(item, "__module__", "") == value.__name__]
        members = getattr(value, "__all__", [member for member in own if not member.startswith("_")])
        for member, item in ((member, getattr(value, member)) for member in members):
            if callable(item) and member not in anyrank.__all__:
                yield f"{name}.{member}", item


def public_methods(kind: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the public methods of a class, without properties."""
    for name, value in vars(kind).items():
        function = getattr(value, "__func__", value)
        if not name.startswith("_") and inspect.isfunction(function):
            yield name, function


OBJECTS = dict(public_objects())
FUNCTIONS = {name: item for name, item in OBJECTS.items() if not inspect.isclass(item)}
CLASSES = {name: item for name, item in OBJECTS.items() if inspect.isclass(item)}
METHODS = {f"{name}.{method}": item for name, kind in CLASSES.items() for method, item in public_methods(kind)}


def split_sections(documented: Any) -> dict[str, str]:
    """Return the text of each section of a docstring; the text before the first one is "Summary"."""
    summary, *rest = re.split(SECTION, inspect.cleandoc(documented.__doc__ or ""), flags=re.M)
    return {"Summary": summary, **dict(zip(rest[::2], rest[1::2], strict=True))}


def parameter_names(text: str) -> set[str]:
    """Return the names that a section of parameters describes."""
    names = (line.partition(" :")[0] for line in text.splitlines() if line[:1].strip())
    return {name.strip("* ") for line in names for name in line.split(",")}


def find_problems(name: str, documented: Any) -> list[str]:
    """Return what the docstring of a function or a class lacks."""
    texts, signature = split_sections(documented), inspect.signature(documented)
    summary = texts["Summary"].partition("\n")[0]
    if any(text in summary for text in ONE_LINE):
        return []
    lacking = {*signature.parameters} - {"self", "cls"} - parameter_names(texts.get("Parameters", ""))
    unknown = parameter_names(texts.get("Parameters", "")) - {*signature.parameters}
    result = [
        f"{name}: {sorted(names)} {what}" for names, what in ((lacking, "undescribed"), (unknown, "unknown")) if names
    ]
    returns = signature.return_annotation not in (None, "None", inspect.Signature.empty)
    if returns and not ({"Returns", "Yields"} & {*texts} or summary.startswith(("Return ", "Yield "))):
        result.append(f"{name}: what it returns is missing")
    return result


@pytest.mark.parametrize("name", OBJECTS)
def test_docstring_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # runs of examples write into it
    runner = doctest.DocTestRunner(verbose=False)
    tests = doctest.DocTestFinder().find(OBJECTS[name], name, globs=NAMES)
    assert name == "Member" or any(test.examples for test in tests if test.name == name)
    for test in tests:
        runner.run(test)
    assert not runner.failures


@pytest.mark.parametrize("name", FUNCTIONS | METHODS)
def test_docstring_describes_parameters_and_result(name):
    assert not find_problems(name, (FUNCTIONS | METHODS)[name])


@pytest.mark.parametrize("name", CLASSES)
def test_docstring_of_class_describes_parameters(name):
    kind = CLASSES[name]
    if "creates it" not in split_sections(kind)["Summary"] and not issubclass(kind, Exception) and kind is not Member:
        assert not find_problems(name, kind)


def test_problems_of_a_docstring_are_found():
    def half(x: float, y: float) -> float:
        """Compute.

        Parameters
        ----------
        x, z : float
            Numbers.
        """
        return x / y

    assert find_problems("half", half) == [
        "half: ['y'] undescribed",
        "half: ['z'] unknown",
        "half: what it returns is missing",
    ]
