"""anyrank: write the kernel once; run it on any number of ranks, CPU or GPU; get the same bits; never lose a run.

What a program needs is here; everything else is in its own module.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anyrank.errors import UsageError
    from anyrank.field import Field, advance
    from anyrank.kernel import Kernel
    from anyrank.keyed.table import Table
    from anyrank.layout import Layout
    from anyrank.numerics import elementary, exact
    from anyrank.numerics.random import Philox
    from anyrank.program import Program, param
    from anyrank.runtime.callback import Callback
    from anyrank.runtime.python import Run, run
    from anyrank.state import Scalar, State
    from anyrank.world import World

#: Modules that users import from here, and names with the modules that have them.
_MODULES = {"elementary": "numerics.elementary", "exact": "numerics.exact"}
_HOMES = {
    "Callback": "runtime.callback",
    "Field": "field",
    "Kernel": "kernel",
    "Layout": "layout",
    "Philox": "numerics.random",
    "Program": "program",
    "Run": "runtime.python",
    "Scalar": "state",
    "State": "state",
    "Table": "keyed.table",
    "UsageError": "errors",
    "World": "world",
    "advance": "field",
    "param": "program",
    "run": "runtime.python",
}

__all__ = [
    "Callback",
    "Field",
    "Kernel",
    "Layout",
    "Philox",
    "Program",
    "Run",
    "Scalar",
    "State",
    "Table",
    "UsageError",
    "World",
    "advance",
    "elementary",
    "exact",
    "param",
    "run",
]


def __getattr__(name: str) -> Any:
    # Looked up when used: importing anyrank must not start MPI in the process that only starts mpiexec.
    if name in _MODULES:
        return import_module(f"anyrank.{_MODULES[name]}")
    if name in _HOMES:
        return getattr(import_module(f"anyrank.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'anyrank' has no attribute {name!r}")
