"""How a program is found: one of those that come with anyrank, or a file of the user's."""

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
from anyrank.world import initialise

#: Begins the name of a module whose file has the name of another module.
OWN_PREFIX = "anyrank_program_"
#: How the names of files begin through which a program's file is imported.
_IMPORTING = (__file__, str(child.__file__), "<frozen importlib", str(Path(importlib.__file__).parent))


def available() -> list[str]:
    """The names of the programs that come with anyrank."""
    return sorted(_modules())


def _modules() -> dict[str, str]:
    """The modules of these programs by name: the files of all folders `programs`, which are not imported."""
    package = Path(__file__).parent.parent
    files = [path for pattern in ("programs/*.py", "*/programs/*.py") for path in package.glob(pattern)]
    names = {path.stem: path.relative_to(package.parent).with_suffix("") for path in files}
    return {name: ".".join(path.parts) for name, path in names.items() if name != "__init__"}


def split_source(source: str) -> tuple[str, str]:
    """Split FILE.py:CLASS into the file and the class, which is empty where none is named.

    Only the last colon counts, and only between the name of a Python file and that of a class: a folder may have
    colons in its name.
    """
    file, _, wanted = source.rpartition(":")
    return (file, wanted) if file.endswith(".py") and wanted.isidentifier() else (source, "")


def is_file(source: str) -> bool:
    """Return whether a program is named by its file, and not by a name that `anyrank list` shows."""
    return split_source(source)[0].endswith(".py")


def absolute(source: str, home: Path | None = None) -> str:
    """Return what names the same program in every folder: a relative file is one of `home`, or of the current one."""
    if not is_file(source):
        return source
    file, wanted = split_source(source)
    return f"{((home or Path()) / file).resolve()}{wanted and ':' + wanted}"


def load(source: str) -> type[Program]:
    """The Program of a name, or of a file: `weather`, `./my_program.py`, `./many.py:Heat`.

    Raises UsageError where there is no such program, or the file does not import (with its traceback).
    """
    known = _modules()
    if source in known:
        return _only_program(importlib.import_module(known[source]), source, "")
    path, wanted = split_source(source)
    if path.endswith(".py"):
        return _only_program(_import_file(Path(path)), path, wanted)
    close = difflib.get_close_matches(source, known, 1)
    hint = f"Did you mean {close[0]}?" if close else "`anyrank list` shows them."
    raise UsageError(
        f"{source!r} is not a program: it must be one of {', '.join(sorted(known))}, or a file ending in .py, or "
        f"FILE.py:CLASS. {hint}"
    )


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"program file {str(path)!r} does not exist: give the path of a Python file, or a name.")
    file = path.resolve()
    parts, root, relative = _place(file)
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
    initialise()  # the file may use MPI as soon as it is imported
    try:
        return child.execute(name, file)
    except (Exception, SystemExit) as error:  # the end of the file may be that of a script
        trace = "".join(traceback.format_exception(type(error), error, _of_the_user(error)))
        raise UsageError(f"program file {str(path)!r} does not import. Mend this:\n{trace.rstrip()}") from None


def _place(file: Path) -> tuple[list[str], Path, bool]:
    """The name under which other processes can import a file, in parts; the folder where they find it; and whether it
    imports relatively. Folders with an __init__.py are packages; so are those that its relative imports take for one.
    """
    depth = _relative_depth(file)
    folder, parts = file.parent, [file.stem]
    while folder.name and (len(parts) <= depth or (folder / "__init__.py").is_file()):
        parts.insert(0, folder.name)
        folder = folder.parent
    return parts, folder, depth > 0


def _relative_depth(file: Path) -> int:
    """How many folders the file's relative imports go up, 0 without any."""
    try:
        nodes = ast.walk(ast.parse(file.read_bytes()))
    except (SyntaxError, ValueError):  # its import will tell
        return 0
    return max((node.level for node in nodes if isinstance(node, ast.ImportFrom)), default=0)


def _is_free(parts: Sequence[str], root: Path) -> bool:
    """Whether a module in this folder has that name, and no other module."""
    top = parts[0]
    if top in sys.stdlib_module_names or any("." in part for part in parts):
        return False
    known = sys.modules.get(top)
    theirs = [*getattr(known, "__path__", ())] or [getattr(known, "__file__", None)]
    return known is None or str(root / (top if len(parts) > 1 else f"{top}.py")) in theirs


def _extend_path(file: Path, root: Path, relative: bool) -> None:
    """Let the modules beside the file be found, and its package. Child processes get the path from `multiprocessing`.

    A file that has the name of a module of Python's, or may have such files beside it in its package, comes last.
    """
    folder = str(file.parent)
    if relative or file.stem in sys.stdlib_module_names:
        sys.path[:] = [*([str(root)] if relative else []), *sys.path, folder]
    else:
        sys.path[:0] = dict.fromkeys([folder, str(root)])


def _of_the_user(error: BaseException) -> TracebackType | None:
    """The traceback from the user's own files on; none where the file did not even parse."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_IMPORTING):
        trace = trace.tb_next
    return trace


def _only_program(module: ModuleType, source: str, wanted: str) -> type[Program]:
    """The program of that name, or the only one that the module defines, or imports where it defines none."""
    there = {name: value for name, value in vars(module).items() if _is_program(value)}
    own = {value.__name__: value for value in there.values() if value.__module__ == module.__name__}
    found = own or {value.__name__: value for value in there.values()}
    if wanted not in there and (wanted or len(found) != 1):
        names = ", ".join(found) or "none"
        asked = f", none of them {wanted}" if wanted else ""
        raise UsageError(
            f"{source} must define one Program but has {len(found)} ({names}){asked}. Name one: {source}:NAME."
        )
    program = there[wanted] if wanted else next(iter(found.values()))
    check_declaration(program)
    return program


def _is_program(value: object) -> TypeGuard[type[Program]]:
    return isinstance(value, type) and issubclass(value, Program) and value is not Program
