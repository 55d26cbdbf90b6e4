"""How a program is found: one of those that come with anyrank, or a file of the user's."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType, TracebackType

from anyrank.errors import UsageError
from anyrank.program import Program, check_declaration
from anyrank.world import initialise


def available() -> list[str]:
    """The names of the programs that come with anyrank."""
    return sorted(_modules())


def _modules() -> dict[str, str]:
    """The modules of these programs by name: the files of all folders `programs`, which are not imported."""
    package = Path(__file__).parent.parent
    files = [path for pattern in ("programs/*.py", "*/programs/*.py") for path in package.glob(pattern)]
    names = {path.stem: path.relative_to(package.parent).with_suffix("") for path in files}
    return {name: ".".join(path.parts) for name, path in names.items() if name != "__init__"}


def load(source: str) -> type[Program]:
    """The Program of a name, or of a file: `weather`, `./my_program.py`, `./many.py:Heat`.

    Raises UsageError where there is no such program, or the file does not import (with its traceback).
    """
    known = _modules()
    if source in known:
        return _only_program(importlib.import_module(known[source]), source, "")
    path, _, wanted = source.partition(":")
    if path.endswith(".py"):
        return _only_program(_import_file(Path(path)), path, wanted)
    close = difflib.get_close_matches(source, known, 1)
    hint = f"Did you mean {close[0]}?" if close else "`anyrank list` shows them."
    raise UsageError(
        f"{source!r} is not a program: it must be one of {', '.join(sorted(known))}, or a file ending in .py. {hint}"
    )


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"program file {str(path)!r} does not exist: give the path of a Python file, or a name.")
    name = "anyrank_program_" + path.stem
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) == str(path.resolve()):
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, path.resolve())
    if specification is None or specification.loader is None:
        raise UsageError(f"program file {str(path)!r} cannot be imported: give the path of a Python file.")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))
    initialise()  # the file may use MPI as soon as it is imported
    try:
        specification.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the end of the file may be that of a script
        del sys.modules[name]
        trace = "".join(traceback.format_exception(type(error), error, _from(path.resolve(), error)))
        raise UsageError(f"program file {str(path)!r} does not import. Mend this:\n{trace.rstrip()}") from None
    return module


def _from(path: Path, error: BaseException) -> TracebackType | None:
    """The traceback from the user's own file on; all of it where the file did not even parse."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != str(path):
        trace = trace.tb_next
    return trace


def _only_program(module: ModuleType, source: str, wanted: str) -> type[Program]:
    found = {
        value.__name__: value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Program) and value.__module__ == module.__name__
    }
    if wanted not in found and (wanted or len(found) != 1):
        names = ", ".join(found) or "none"
        asked = f", none of them {wanted}" if wanted else ""
        raise UsageError(
            f"{source} must define one Program but has {len(found)} ({names}){asked}. Name one: {source}:NAME."
        )
    program = found[wanted] if wanted else next(iter(found.values()))
    check_declaration(program)
    return program
