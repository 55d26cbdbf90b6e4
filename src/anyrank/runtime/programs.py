"""Find and load a program: one that comes with anyrank, or a file of the user."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import TypeGuard

from anyrank.errors import UsageError
from anyrank.program import Program, check_declaration
from anyrank.runtime.user_files import import_file, split_source
from anyrank.world import initialize


def available_programs() -> list[str]:
    """List the names of the programs that come with anyrank."""
    return sorted(_modules())


def _modules() -> dict[str, str]:
    """Return the modules of these programs by name, from the files in all folders `programs`; nothing is imported."""
    package = Path(__file__).parent.parent
    files = [path for pattern in ("programs/*.py", "*/programs/*.py") for path in package.glob(pattern)]
    names = {path.stem: path.relative_to(package.parent).with_suffix("") for path in files}
    return {name: ".".join(path.parts) for name, path in names.items() if name != "__init__"}


def load(source: str) -> type[Program]:
    """Load a Program by its name or from a file: `weather`, `./my_program.py`, `./many.py:Heat`.

    Raises UsageError if there is no such program, or if the file does not import (with its traceback).
    """
    known = _modules()
    if source in known:
        return _only_program(importlib.import_module(known[source]), source, "")
    path, class_name = split_source(source)
    if path.endswith(".py"):
        return _only_program(import_file(Path(path), initialize), path, class_name)
    similar = difflib.get_close_matches(source, known, 1)
    hint = f"Did you mean {similar[0]}?" if similar else "`anyrank list` shows them."
    raise UsageError(
        f"{source!r} is not a program: it must be one of {', '.join(sorted(known))}, or a file ending in .py, or "
        f"FILE.py:CLASS. {hint}"
    )


def _only_program(module: ModuleType, source: str, class_name: str) -> type[Program]:
    """Return the program of that name, or else the only one that the module defines, or else imports."""
    programs = {name: value for name, value in vars(module).items() if _is_program(value)}
    own = {value.__name__: value for value in programs.values() if value.__module__ == module.__name__}
    candidates = own or {value.__name__: value for value in programs.values()}
    if class_name not in programs and (class_name or len(candidates) != 1):
        names = ", ".join(candidates) or "none"
        missing = f", none of them {class_name}" if class_name else ""
        raise UsageError(
            f"{source} must define one Program but has {len(candidates)} ({names}){missing}. Name one: {source}:NAME."
        )
    program = programs[class_name] if class_name else next(iter(candidates.values()))
    check_declaration(program)
    return program


def _is_program(value: object) -> TypeGuard[type[Program]]:
    return isinstance(value, type) and issubclass(value, Program) and value is not Program
