"""The structure of the source: which packages may import which, and the largest size of modules and functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE, KERNELS, TESTS = ROOT / "src", ROOT / "kernels", ROOT / "tests"
#: Packages and modules of src/anyrank: each imports those of its own line and of the lines above it, never below.
LAYERS = (
    "errors values toml declaration parameter launcher child memory observe device",
    "recorder world layout",
    "kernel numerics exact elementary member",
    "exchange field grid state program",
    "provenance storage output",
    "runtime",
    "verify scaling batch cli __main__",
)
#: Packages above the layers: a wing imports any of the layers, and no other wing; but farm reads and writes tables with
#: keyed, because there is one reader of tables and one writer.
WINGS = ("keyed", "particles", "farm", "programs")
USED_BY = {"farm": {"keyed"}}
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names.split()}
MAX_MODULE_LINES, MAX_FUNCTION_LINES = 400, 60
MAX_TEST_NAME = 60


@cache
def modules() -> dict[str, ast.Module]:
    """The modules of src/anyrank by their names; compiled modules have an empty content."""
    result = {}
    for path in (SOURCE / "anyrank").rglob("*.py*"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        if path.suffix in (".py", ".pyx") and parts[1] not in (
            "kernels",
            "jobs",
        ):  # a copy may have links to these folders there
            text = path.read_text() if path.suffix == ".py" else ""
            result[".".join(parts).removesuffix(".__init__")] = ast.parse(text)
    return result


def imports_of(tree: ast.Module) -> Iterator[str]:
    """Names that are imported anywhere in the file, also those for type checkers only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module}.{name.name}" for name in node.names)


def modules_in_strings(tree: ast.Module) -> set[str]:
    """Names of modules in strings, as `importlib.import_module` takes them."""
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return texts & (modules().keys() - {"anyrank"})


@cache
def graph() -> dict[str, set[str]]:
    """The modules of src/anyrank that each of them imports, without the facade `anyrank`, which names all of them."""
    known = modules()

    def module_of(name: str) -> str:
        while name and name not in known:
            name = name.rpartition(".")[0]
        return name

    targets_of = {name: {*map(module_of, imports_of(tree))} for name, tree in known.items()}
    return {name: targets - {name, "anyrank", ""} for name, targets in targets_of.items() if name != "anyrank"}


def names_of_tests(tree: ast.AST) -> Iterator[str]:
    """The names of the test functions of a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name


def part(module: str) -> str:
    """The package or module of src/anyrank that a module belongs to."""
    return module.split(".")[1]


def cycles(edges: dict[str, set[str]]) -> list[set[str]]:
    """Groups of nodes that reach each other: cycles of the graph."""

    def reachable(start: str) -> set[str]:
        seen, ahead = set(), [start]
        while ahead:
            for node in edges.get(ahead.pop(), set()) - seen:
                seen.add(node)
                ahead.append(node)
        return seen

    reach = {node: reachable(node) for node in edges}
    return [
        {node, *(other for other in reach[node] if node in reach.get(other, ()))}
        for node in edges
        if node in reach[node]
    ]


def test_house_every_part_has_a_layer():
    parts = {part(module) for module in graph()}
    assert parts <= {*LEVEL, *WINGS}, f"missing in LAYERS: {parts - {*LEVEL, *WINGS}}"


def test_house_core_and_runtime_import_no_wing():
    wrong = [
        (a, b)
        for a, targets in graph().items()
        for b in targets | modules_in_strings(modules()[a])
        if part(a) not in WINGS and part(b) in WINGS
    ]
    assert not wrong


def test_house_wings_do_not_import_each_other():
    wrong = [
        (a, b)
        for a, targets in graph().items()
        for b in targets
        if part(a) in WINGS and part(b) in WINGS and part(b) not in {part(a), *USED_BY.get(part(a), ())}
    ]
    assert not wrong


def test_house_imports_go_to_lower_layers():
    wrong = [
        (a, b)
        for a, targets in graph().items()
        for b in targets
        if part(a) in LEVEL and part(b) in LEVEL and LEVEL[part(b)] > LEVEL[part(a)]
    ]
    assert not wrong


def test_house_has_no_cycle_of_files():
    assert not cycles(graph())


def test_house_has_no_cycle_of_packages():
    edges: dict[str, set[str]] = {}
    for module, targets in graph().items():
        edges.setdefault(part(module), set()).update({part(target) for target in targets} - {part(module)})
    assert not cycles(edges)


def test_house_modules_do_not_import_names_of_the_facade():
    known = modules()
    wrong = [
        (module, name)
        for module, tree in known.items()
        for name in imports_of(tree)
        if name.count(".") == 1 and name.startswith("anyrank.") and name not in known
        if name.partition(".")[2] not in ("kernels", "jobs")
    ]
    assert not wrong


def test_house_all_imports_are_absolute():
    assert not [(module, name) for module, tree in modules().items() for name in imports_of(tree) if name[0] == "."]


def test_kernels_import_neither_anyrank_nor_mpi():
    wrong = [
        (path.relative_to(ROOT).as_posix(), name)
        for path in KERNELS.rglob("*.py")
        for name in imports_of(ast.parse(path.read_text()))
        if name.split(".")[0] in ("anyrank", "mpi4py") and name.split(".")[:2] != ["anyrank", "kernels"]
    ]
    assert not wrong


@pytest.mark.parametrize("folder", [SOURCE, KERNELS], ids=["src", "kernels"])
def test_house_modules_and_functions_are_small(folder):
    wrong = []
    for path in folder.rglob("*.py"):
        text = path.read_text()
        wrong += [(path.name, text.count("\n"))] * (text.count("\n") > MAX_MODULE_LINES)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= MAX_FUNCTION_LINES:
                wrong.append((path.name, node.name, node.end_lineno - node.lineno + 1))
    assert not wrong


def test_house_names_of_tests_are_short():
    names = [name for path in TESTS.rglob("*.py") for name in names_of_tests(ast.parse(path.read_text("utf-8")))]
    assert names and not [name for name in names if len(name) > MAX_TEST_NAME]


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}}, []),
        ({"a": {"b"}, "b": {"c"}, "c": {"b"}}, [{"b", "c"}, {"b", "c"}]),
    ],
)
def test_cycles_of_a_graph_are_found(edges, expected):
    assert cycles(edges) == expected


def test_imported_in_functions_and_for_types_is_found():
    text = """
import anyrank.world
from anyrank import launcher
if TYPE_CHECKING:
    from anyrank.field import Field
def load():
    from anyrank.keyed import order
    import_module("anyrank.programs.pi")
"""
    expected = {"anyrank.world", "anyrank.launcher", "anyrank.field.Field", "anyrank.keyed.order"}
    assert {*imports_of(ast.parse(text))} == expected and modules_in_strings(ast.parse(text)) == {"anyrank.programs.pi"}
