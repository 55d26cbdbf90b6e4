"""The check of `Program.finite`: all elements of the Fields are finite."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from anyrank.numerics.strided import row_slices
from anyrank.state import Field, State


class NotFinite(NamedTuple):
    """An element that is NaN or infinite. The smallest is the first in time, then by Field, then in C order."""

    step: float
    number: int
    point: tuple[int, ...]
    value: str


#: What a rank without such an element has found.
_NOTHING = NotFinite(math.inf, 0, (), "")


class FiniteCheck:
    """Finds the first element of the Fields that is not finite, of real and complex floating-point numbers.

    `look` is not collective: ranks agree on `found` with the other flags of a step, and then on `first`.
    """

    def __init__(self, state: State):
        self._state = state
        self._fields = [field for field in state.fields() if field.dtype.kind in "fc" and not field.constant]
        self._own = _NOTHING

    @property
    def found(self) -> bool:
        """Whether this rank has found such an element in any step."""
        return self._own != _NOTHING

    def look(self) -> None:
        """Check the present values of this rank, if none was found before. Not collective."""
        for number, field in enumerate(self._fields):
            if not self.found and not _is_finite(field):
                host = field.device.to_host(field.local)
                # The order of global indices within a block is that of local indices.
                where = np.unravel_index(int(np.argmin(np.isfinite(host))), host.shape)
                point = tuple(int(i) + start for i, start in zip(where, field.layout.start, strict=True))
                self._own = NotFinite(self._state.step, number, point, str(host[where]))

    def first(self) -> NotFinite | None:
        """Return the first such element of all ranks, None if there is none. Collective."""
        found: Any = min(self._state.world.comm.allgather(self._own))
        return None if found == _NOTHING else found

    def describe(self, found: NotFinite) -> str:
        """Return the element as text: its field, value, index and step."""
        when = f"step {found.step}" if found.step else "setup"
        return (
            f"field {self._fields[found.number].name} is {found.value} at the global index {found.point} after {when}"
        )


def _is_finite(field: Field) -> bool:
    local = field.local
    return all(bool(np.isfinite(local[rows]).all()) for rows in row_slices(local))
