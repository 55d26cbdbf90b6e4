"""Programs: parameters are declared once, and refused with name, value, rule and fix."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

import anyrank
from anyrank.errors import UsageError
from anyrank.program import Program, param
from anyrank.runtime.programs import available_programs, load


class Everything(Program):
    """One parameter of every kind."""

    count: int = param(10, "a whole number", ge=1, lt=100)
    share: float = param(0.5, "a number", gt=0, le=1)
    deep: bool = param(False, "a switch")
    colour: Literal["red", "green"] = param("red", "one of two")
    title: str = param("", "text")


def test_program_has_defaults_and_takes_values():
    assert Everything().parameters == {"count": 10, "share": 0.5, "deep": False, "colour": "red", "title": ""}
    given = Everything(count="1e1", share="0.25", deep="true", colour="green", title="x").parameters
    assert given == {"count": 10, "share": 0.25, "deep": True, "colour": "green", "title": "x"}
    assert Everything(count="1_0").count == 10


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": "0"}, r"--count 0 must be at least 1 \(a whole number\)\. Use --count 1 or more\."),
        ({"count": 100}, r"--count 100 must be less than 100"),
        ({"count": "many"}, r"--count many must be a whole number .* such as --count 10"),
        ({"count": True}, r"--count True must be a whole number"),
        ({"share": False}, r"--share False must be a number"),
        ({"count": 1.5}, r"--count 1.5 must be a whole number"),
        ({"share": 0}, r"--share 0 must be greater than 0"),
        ({"share": "1.5"}, r"--share 1.5 must be at most 1"),
        ({"share": "half"}, r"--share half must be a number"),
        ({"share": "nan"}, r"--share nan must be"),
        ({"deep": "perhaps"}, r"--deep perhaps must be true or false"),
        ({"colour": "blue"}, r"--colour blue must be one of red, green"),
        ({"title": 3}, r"--title 3 must be text"),
        ({"coutn": 3}, r"coutn = 3 is not a parameter of everything\. Did you mean --count\?"),
        ({"zzz": 3}, r"zzz = 3 is not a parameter of everything\. They are count, share"),
    ],
)
def test_program_bad_values_give_name_value_rule_and_fix(values, message):
    with pytest.raises(UsageError, match=message):
        Everything(**values)


def test_program_all_bad_values_are_named_at_once():
    with pytest.raises(UsageError, match=r"--count 0 (.|\n)*--share 2"):
        Everything(count=0, share=2)


def test_program_required_parameter_must_be_given():
    class Required(Program):
        n: int = param(..., "needed")

    with pytest.raises(UsageError, match=r"--n is required: needed"):
        Required()
    assert Required(n=3).n == 3


@pytest.mark.parametrize("name", ["work", "done", "setup", "check", "name", "parameters", "declared", "_private"])
def test_parameter_named_as_an_attribute_is_refused(name):
    with pytest.raises(TypeError, match=rf"program greedy: parameter {name}: this name .* Please rename"):
        type("Greedy", (Program,), {"__annotations__": {name: int}, name: param(1, "taken")})


def test_parameter_without_a_type_is_refused():
    with pytest.raises(TypeError, match=r"parameters \['n'\] need a type: n: int = param"):

        class Untyped(Program):
            n = param(5, "no annotation")


def test_parameters_are_inherited_and_may_be_changed():
    class Child(Everything):
        count: int = param(20, "another default", ge=1)
        more: int = param(3, "one more")

    assert list(Child.declared()) == ["count", "share", "deep", "colour", "title", "more"]
    assert Child().parameters["count"] == 20


def test_parameter_plain_value_in_a_subclass_is_a_new_default():
    class Child(Everything):
        count = 20
        share = 1

    assert Child().parameters["count"] == 20 and type(Child().share) is float
    with pytest.raises(UsageError, match=r"--count 100 must be less than 100 \(a whole number\)"):
        Child(count=100)


def test_param_again_keeps_type_bounds_and_description():
    class Child(Everything):
        count = param(20)
        share: float = param(0.25, le=0.5)

    assert Child.declared()["share"].bounds == {"gt": 0, "le": 0.5}
    assert Child.declared()["count"].description == "a whole number"
    for values in ({"count": 100}, {"count": 0}, {"share": 0.75}, {"share": 0}):
        with pytest.raises(UsageError):
            Child(**values)


def test_property_replaces_an_inherited_parameter():
    class Child(Everything):
        @property
        def count(self) -> int:
            return 7

    assert "count" not in Child().parameters and Child().count == 7


def test_parameter_default_is_checked_and_converted():
    class Defaults(Program):
        factor: float = param(3, "a number")
        file: Path = param("data.csv", "a path")
        limit: int | None = param(None, "a limit")
        levels: list[int] = param((1, 2), "levels")

    program = Defaults()
    assert type(program.factor) is float and program.file == Path.cwd() / "data.csv" and program.levels == [1, 2]
    kept = {"factor": 3.0, "file": str(Path.cwd() / "data.csv"), "limit": "none", "levels": [1, 2]}
    assert program.parameters == kept and Defaults(**program.parameters).parameters == kept


BAD_DECLARATIONS = {
    "infinite": ("t_end: float = param(float('inf'), 'an end')", "default of t_end = inf must be finite (an end)"),
    "out of bounds": ("n: int = param(0, 'cells', ge=1)", "default of n = 0 must be at least 1 (cells)"),
    "of another type": ("n: int = param('x')", "default of n = x must be a whole number"),
    "a type of no parameter": ("n: dict = param({})", "parameter n: dict is no type of a parameter. Use int"),
    "an unknown type": ("n: Nowhere = param(1)", "the type of a parameter is unknown: name 'Nowhere'"),
    "bounds of text": ("n: str = param('', ge=1)", "parameter n: bounds (ge) are for numbers"),
    "a seed of text": ("seed: str = param('a')", "parameter seed: it is the seed of state.random and must be an int"),
    "a seed too large": ("seed: int = param(2**64)", "default of seed = 18446744073709551616 must be less than"),
    "a name": ("work: float = param(1.5)", "parameter work: this name is an attribute of every Program. Please rename"),
}


@pytest.mark.parametrize("case", BAD_DECLARATIONS)
def test_bad_declaration_is_refused_when_the_file_is_loaded(tmp_path, case):
    line, message = BAD_DECLARATIONS[case]
    text = f"from __future__ import annotations\nfrom anyrank import Program, param\nclass Bad(Program):\n    {line}\n"
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(UsageError) as refused:
        load(str(tmp_path / "bad.py"))
    assert message in str(refused.value) and "program bad: " in str(refused.value)


def test_dataclass_is_refused_when_the_file_is_loaded(tmp_path):
    text = "from dataclasses import dataclass\nfrom anyrank import Program, param\n"
    (tmp_path / "data.py").write_text(text + "@dataclass\nclass Data(Program):\n    n: int = param(8, 'points')\n")
    with pytest.raises(UsageError, match=r"program data: it is a dataclass.* Remove @dataclass"):
        load(str(tmp_path / "data.py"))


def test_usage_error_is_exported_for_check():
    assert anyrank.UsageError is UsageError


def test_load_installed_programs_by_name():
    assert {"weather", "pi"} <= set(available_programs())
    assert load("pi").name == "pi"
    assert load("weather").summary().startswith("Shallow-water weather")


def test_load_unknown_program_is_refused_with_a_suggestion():
    with pytest.raises(UsageError, match=r"'wether' is not a program: it must be one of .*Did you mean weather"):
        load("wether")


def test_load_file_of_a_user_is_a_program(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from anyrank import Program, param\nclass One(Program):\n    n: int = param(1, 'n')\n")
    assert load(str(file)).name == "one"
    file = tmp_path / "two.py"
    file.write_text("from anyrank import Program\nclass A(Program): pass\nclass B(Program): pass\n")
    with pytest.raises(UsageError, match=r"must define one Program but has 2 \(A, B\).*two.py:NAME"):
        load(str(file))
    assert load(f"{file}:B").name == "b"
    with pytest.raises(UsageError, match="none of them C"):
        load(f"{file}:C")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import nowhere_to_be_found\n",
            r"does not import\. Fix this error:\n(.|\n)*bad.py.*line 1(.|\n)*nowhere_to_be",
        ),
        ("x = 1 +\n", r"does not import(.|\n)*SyntaxError"),
        ("x = 1\n", r"must define one Program but has 0 \(none\)"),
    ],
)
def test_load_file_without_a_program_is_refused(tmp_path, text, message):
    file = tmp_path / "bad.py"
    file.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        load(str(file))
    assert "importlib" not in str(caught.value)


def test_load_missing_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        load(str(tmp_path / "none.py"))


def test_available_lists_programs_of_wings_without_importing():
    words = (
        "from anyrank.runtime.programs import available_programs; import sys; print(*available_programs());"
        "wings = ('anyrank.keyed', 'anyrank.farm', 'anyrank.programs');"
        "print(*(name for name in sys.modules if name.startswith(wings)))"
    )
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=False)
    names, imported = done.stdout.split("\n")[:2]
    assert names == "farm grep groupby pi sort weather wordcount" and not imported, done


def test_program_without_parameters_is_loaded(tmp_path):
    file = tmp_path / "bare.py"
    file.write_text("import anyrank\n\n\nclass Bare(anyrank.Program):\n    pass\n")
    # In a process of its own, since this process may have loaded all of pydantic.
    words = "from anyrank.runtime.programs import load; import sys; print(load(sys.argv[1])().parameters)"
    done = subprocess.run([sys.executable, "-c", words, file], capture_output=True, text=True, check=False)
    assert done.stdout == "{}\n", done.stderr
