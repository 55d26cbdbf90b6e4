"""anyrank: write the kernel once; run it on any number of ranks, CPU or GPU; get the same bits; never lose a run.

Each name below is imported from its own module when it is first used. Importing anyrank does not start MPI.
The examples in their help assume `import numpy as np`, `from pathlib import Path` and `from anyrank import *`.

Programs
    Program     base class of a program: parameters, State, `setup`, `step`, `result`
    param       declare a parameter of a Program, with its default, help text and bounds
    State       the declared members of a program: exactly what a checkpoint holds
    Grid        a domain, whose Fields share one decomposition and boundary conditions, staggered ones too
    Field       a global array that is split over the ranks, with a halo
    Scalar      a value that is the same on all ranks
    Table       rows with a key, combined by key and distributed by key
    Kernel      an operation on local arrays, with a reference body and optional faster bodies
    advance     exchange the halos of several Fields, call a Kernel, make the new values current
    Callback    base class of code that is called before and after steps, and when a checkpoint is written

Runs
    run         run a Program from Python and return its Run
    open        return the Run in a folder, for analysis
    Run         the summary, result and fields of a run folder

Arithmetic with the same bits everywhere
    exact       module: sums, means, variances, dot products, norms, extremes and histograms of Fields and arrays
    elementary  module: sin, cos, exp and log
    Philox      random numbers that are a function of seed, stream, global index and step

Ranks
    World       a private clone of a communicator, with agreement between ranks
    Layout      the domain decomposition: which rank owns which global indices

Keyed data
    keyed       package: text and tables that are read, combined by key, sorted and written by all ranks

Independent tasks
    farm        package: a function or a command for each row of a table, on all ranks

Errors
    AnyrankError  base class of the errors that end a run with one message
    UsageError    bad usage, parameter or input: exit status 2
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anyrank import elementary, exact, farm, keyed
    from anyrank.errors import AnyrankError, UsageError
    from anyrank.exchange.advance import advance
    from anyrank.field import Field
    from anyrank.grid import Grid
    from anyrank.kernel import Kernel
    from anyrank.keyed.table import Table
    from anyrank.layout import Layout
    from anyrank.member import Scalar
    from anyrank.numerics.random import Philox
    from anyrank.parameter import param
    from anyrank.program import Program
    from anyrank.runtime.callback import Callback
    from anyrank.runtime.python import Run, open, run
    from anyrank.state import State
    from anyrank.world import World

#: The module that defines each public name. A name that is its own module is that module.
_MODULE_OF = {
    "AnyrankError": "errors",
    "Callback": "runtime.callback",
    "Field": "field",
    "Grid": "grid",
    "Kernel": "kernel",
    "Layout": "layout",
    "Philox": "numerics.random",
    "Program": "program",
    "Run": "runtime.python",
    "Scalar": "member",
    "State": "state",
    "Table": "keyed.table",
    "UsageError": "errors",
    "World": "world",
    "advance": "exchange.advance",
    "elementary": "elementary",
    "exact": "exact",
    "farm": "farm",
    "keyed": "keyed",
    "open": "runtime.python",
    "param": "parameter",
    "run": "runtime.python",
}

__all__ = [
    "AnyrankError",
    "Callback",
    "Field",
    "Grid",
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
    "farm",
    "keyed",
    "open",
    "param",
    "run",
]


def __getattr__(name: str) -> Any:
    # Imported at the first use: the process that only starts mpiexec imports anyrank and must not start MPI.
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'anyrank' has no attribute {name!r}")
    path = _MODULE_OF[name]
    module = import_module(f"anyrank.{path}")
    return module if path == name else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
