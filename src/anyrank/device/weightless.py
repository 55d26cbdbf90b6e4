"""A device whose arrays take no memory: what a program declares, before any of it is there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from anyrank.device import Device


class Weightless(Device):
    """Arrays of any shape in the memory of one element."""

    def rows(self, shape: tuple[int, ...], value: Any, dtype: DTypeLike, first: int) -> Any:
        """See `Device`."""
        return np.lib.stride_tricks.as_strided(np.full(1, value, dtype), shape, (0,) * len(shape))
