"""The public names of the package `anyrank`: all resolve, all are documented, and an import starts no MPI."""

from __future__ import annotations

import ast
import pydoc
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import anyrank

SOURCE = Path(anyrank.__file__ or "")


def names_for_type_checkers() -> dict[str, str]:
    """The names that `if TYPE_CHECKING` imports, each with the module that it comes from."""
    (block,) = (node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If))
    imports = (node for node in block.body if isinstance(node, ast.ImportFrom))
    return {alias.name: str(node.module) for node in imports for alias in node.names}


@pytest.mark.parametrize("name", anyrank.__all__)
def test_facade_name_resolves_and_is_listed(name):
    value = getattr(anyrank, name)
    module = value.__name__ if isinstance(value, ModuleType) else value.__module__
    assert module == f"anyrank.{anyrank._MODULE_OF[name]}"
    assert name in dir(anyrank)


def test_facade_all_table_and_type_imports_agree():
    assert sorted(anyrank.__all__) == anyrank.__all__ == sorted(anyrank._MODULE_OF)
    modules = {name: f"anyrank.{path}" for name, path in anyrank._MODULE_OF.items()}
    is_module = {name: isinstance(getattr(anyrank, name), ModuleType) for name in modules}
    from_package = {name: m.removesuffix(f".{name}") if is_module[name] else m for name, m in modules.items()}
    assert names_for_type_checkers() == from_package


def test_facade_help_describes_every_name_in_one_line():
    described = {line.split()[0] for line in anyrank.__doc__.splitlines() if line.startswith("    ")}
    assert described == set(anyrank.__all__)
    text = pydoc.render_doc(anyrank, renderer=pydoc.plaintext)
    assert not [name for name in anyrank.__all__ if name not in text]


@pytest.mark.parametrize("module", ["elementary", "exact", "keyed"])
def test_facade_module_can_be_imported_from_before_its_first_use(module):
    """As a statement in a new process, where nothing has used the attribute of the package."""
    name = {"elementary": "sin", "exact": "sum", "keyed": "table"}[module]
    code = f"from anyrank.{module} import {name} as f; import anyrank, sys; sys.exit(f is not anyrank.{module}.{name})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_facade_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match="module 'anyrank' has no attribute 'Feild'"):
        anyrank.Feild  # noqa: B018


@pytest.mark.parametrize("use", ["", "dir(anyrank)", "anyrank.AnyrankError, anyrank.keyed"])
def test_facade_import_does_not_start_mpi(use):
    code = f"import sys, anyrank; {use or 'None'}; sys.exit('mpi4py.MPI' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", anyrank.keyed.__all__)
def test_keyed_name_at_second_use_is_no_submodule(name):
    for _ in range(2):  # a submodule with the same name would replace it when it is imported
        value = getattr(anyrank.keyed, name)
        assert callable(value) and value.__name__ == name
