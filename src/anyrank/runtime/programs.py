"""Find and load a program: one that comes with anyrank, or a file of the user."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TypeGuard

from anyrank import child
from anyrank.errors import UsageError
from anyrank.program import Program, check_declaration
from anyrank.world import initialize

#: Prefix of the module name if the program's file has the name of another module.
OWN_PREFIX = "anyrank_program_"
#: Prefixes of the files that import a program's file; tracebacks leave them out.
_IMPORTING = (__file__, str(child.__file__), "<frozen importlib", str(Path(importlib.__file__).parent))


def available_programs() -> list[str]:
    """List the names of the programs that come with anyrank."""
    return sorted(_modules())


def _modules() -> dict[str, str]:
    """Return the modules of these programs by name, from the files in all folders `programs`; nothing is imported."""
    package = Path(__file__).parent.parent
    files = [path for pattern in ("programs/*.py", "*/programs/*.py") for path in package.glob(pattern)]
    names = {path.stem: path.relative_to(package.parent).with_suffix("") for path in files}
    return {name: ".".join(path.parts) for name, path in names.items() if name != "__init__"}


def split_source(source: str) -> tuple[str, str]:
    """Split FILE.py:CLASS into the file and the class; the class is empty if it is not given.

    Only the last colon separates, and only between a Python file and a class name: the names of folders may contain
    colons.
    """
    file, _, class_name = source.rpartition(":")
    return (file, class_name) if file.endswith(".py") and class_name.isidentifier() else (source, "")


def is_file(source: str) -> bool:
    """Return whether a program is given as a file, and not as a name that `anyrank list` shows."""
    return split_source(source)[0].endswith(".py")


def absolute(source: str, home: Path | None = None) -> str:
    """Return the source with an absolute path; a relative path starts at `home`, or at the current folder."""
    if not is_file(source):
        return source
    file, class_name = split_source(source)
    return f"{((home or Path()) / file).resolve()}{class_name and ':' + class_name}"


def load(source: str) -> type[Program]:
    """Load a Program by its name or from a file: `weather`, `./my_program.py`, `./many.py:Heat`.

    Raises UsageError if there is no such program, or if the file does not import (with its traceback).
    """
    known = _modules()
    if source in known:
        return _only_program(importlib.import_module(known[source]), source, "")
    path, class_name = split_source(source)
    if path.endswith(".py"):
        return _only_program(_import_file(Path(path)), path, class_name)
    similar = difflib.get_close_matches(source, known, 1)
    hint = f"Did you mean {similar[0]}?" if similar else "`anyrank list` shows them."
    raise UsageError(
        f"{source!r} is not a program: it must be one of {', '.join(sorted(known))}, or a file ending in .py, or "
        f"FILE.py:CLASS. {hint}"
    )


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"program file {str(path)!r} does not exist: give the path of a Python file, or a name.")
    file = path.resolve()
    parts, root, relative = _module_name(file)
    name = ".".join(parts)
    os.environ.pop(child.PROGRAM_FILE, None)
    if not _is_free(parts, root):
        if relative:
            raise UsageError(
                f"program file {str(path)!r} imports from its package {'.'.join(parts[:-1])!r}, but another module has "
                "that name, or a dot is in it. Rename the folder."
            )
        name, root = OWN_PREFIX + file.stem.replace(".", "_"), file.parent
        os.environ[child.PROGRAM_FILE] = f"{name}:{file}"
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) == str(file):
        return sys.modules[name]
    _extend_path(file, root, relative)
    initialize()  # the file may use MPI while it is imported
    try:
        return child.execute(name, file)
    except (Exception, SystemExit) as error:  # a script may end with sys.exit
        trace = "".join(traceback.format_exception(type(error), error, _user_traceback(error)))
        raise UsageError(f"program file {str(path)!r} does not import. Fix this error:\n{trace.rstrip()}") from None


def _module_name(file: Path) -> tuple[list[str], Path, bool]:
    """Return the module name of a file, in parts; the folder to import it from; and whether it has relative imports.

    Folders with an __init__.py are packages, and so are those that the file's relative imports refer to.
    """
    depth = _relative_depth(file)
    folder, parts = file.parent, [file.stem]
    while folder.name and (len(parts) <= depth or (folder / "__init__.py").is_file()):
        parts.insert(0, folder.name)
        folder = folder.parent
    return parts, folder, depth > 0


def _relative_depth(file: Path) -> int:
    """Return the largest number of folders that the file's relative imports go up, 0 without any."""
    try:
        nodes = ast.walk(ast.parse(file.read_bytes()))
    except (SyntaxError, ValueError):  # the import reports it
        return 0
    return max((node.level for node in nodes if isinstance(node, ast.ImportFrom)), default=0)


def _is_free(parts: Sequence[str], root: Path) -> bool:
    """Return whether no module outside this folder has that name."""
    top = parts[0]
    if top in sys.stdlib_module_names or any("." in part for part in parts):
        return False
    known = sys.modules.get(top)
    locations = [*getattr(known, "__path__", ())] or [getattr(known, "__file__", None)]
    return known is None or str(root / (top if len(parts) > 1 else f"{top}.py")) in locations


def _extend_path(file: Path, root: Path, relative: bool) -> None:
    """Add the file's folder, and that of its package, to sys.path. `multiprocessing` passes the path to children.

    The folder comes last if the file, or another file of its package, may have the name of a standard module.
    """
    folder = str(file.parent)
    if relative or file.stem in sys.stdlib_module_names:
        sys.path[:] = [*([str(root)] if relative else []), *sys.path, folder]
    else:
        sys.path[:0] = dict.fromkeys([folder, str(root)])


def _user_traceback(error: BaseException) -> TracebackType | None:
    """Return the part of the traceback that starts in the user's files; None if the file did not parse."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_IMPORTING):
        trace = trace.tb_next
    return trace


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
