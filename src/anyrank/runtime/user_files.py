"""Import a Python file of the user, by its path; light, because workers import it."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, TracebackType

from anyrank import child
from anyrank.errors import UsageError

#: Prefix of the module name if the program's file has the name of another module.
OWN_PREFIX = "anyrank_program_"
#: Prefixes of the files that import a program's file; tracebacks leave them out.
_IMPORTING = (__file__, str(child.__file__), "<frozen importlib", str(Path(importlib.__file__).parent))


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


def import_file(path: Path, prepare: Callable[[], None] | None = None) -> ModuleType:
    """Import a Python file of the user; `prepare` is called before its code runs.

    Raises UsageError if there is no such file, or if it does not import (with its traceback).
    """
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
    if prepare is not None:  # the file may use MPI while it is imported
        prepare()
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
