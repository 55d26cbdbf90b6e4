"""What a farm would do: its tasks as text, for --dry-run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from anyrank.errors import UsageError
from anyrank.farm import calls
from anyrank.farm.inputs import Inputs
from anyrank.world import World

#: The number of tasks that are shown.
SHOWN = 10


def _text(farm: Any, row: dict[str, Any]) -> str:
    """Return what a task does."""
    if farm.command:
        try:
            return calls.command_of(farm.command, row)
        except calls.CommandError as error:
            return str(error)
    if farm.program:
        return " ".join([f"anyrank run {farm.program}", *(f"--set {k}={value}" for k, value in farm.own(row).items())])
    function = calls.load_function(farm.function)
    taken, _, any_ = calls.parameters_of(function)
    values = [f"{name}={value!r}" for name, value in row.items() if any_ or name in taken]
    return f"{getattr(function, '__name__', 'function')}({', '.join(values)})"


def preview(farm: Any) -> list[str]:
    """Check a program `farm` and its table; return the number of tasks and the first ones as text. No task is run.

    Raises
    ------
    UsageError
        As the farm itself, and for tasks that arrive later.
    """
    world = World()
    try:
        with tempfile.TemporaryDirectory(prefix="anyrank-farm-") as folder:
            farm.open_table(world)
            farm.read_inputs(Path(folder), world)
            inputs = farm.inputs
            if not isinstance(inputs, Inputs):
                raise UsageError("--dry-run needs all tasks at the begin. Save the table to a file.")
            rows = inputs.rows_of(range(min(SHOWN, inputs.rows)))
            names = [str(row.get(farm.id, index)) for index, row in enumerate(rows)]
            lines = [f"{inputs.rows} tasks"]
            lines += [f"{name}: {_text(farm, row)}" for name, row in zip(names, rows, strict=True)]
            return [*lines, f"… {inputs.rows - SHOWN} more"] if inputs.rows > SHOWN else lines
    finally:
        world.close()
