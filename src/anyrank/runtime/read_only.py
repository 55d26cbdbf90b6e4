"""What it means when a program writes a read-only array of a Field."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anyrank.errors import UsageError


@contextmanager
def explain_read_only() -> Iterator[None]:
    """Replace NumPy's error for a write to a read-only array by a UsageError that names the place and the remedy."""
    try:
        yield
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise UsageError(
            f"{Path(place.filename).name}:{place.lineno}: {place.line}: this array is read-only, as is field.array, "
            "the block with its halo: what is written to ghost cells would be lost, because they hold values of other "
            "ranks and of the boundary conditions. Write the block with field[...] or field.local; declare boundary "
            "conditions for cells outside the domain."
        ) from error
