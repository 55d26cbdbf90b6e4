"""Equality of results with their type and the sign of zero."""

from __future__ import annotations

import math
from typing import Any


def same(a: Any, b: Any) -> bool:
    """Whether two results are equal with type and the sign of zero; NaN equals NaN."""
    equal = (a == b and math.copysign(1, a) == math.copysign(1, b)) or (a != a and b != b)
    return type(a) is type(b) and equal
