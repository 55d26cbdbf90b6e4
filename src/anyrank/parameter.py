"""The declaration of a parameter of a Program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Parameter:
    """The declaration of a parameter: a default, or `...` if it has none; a description; bounds of numbers by name."""

    default: Any
    description: str
    bounds: Mapping[str, float]
    #: Whether a resume may give a larger value; None if the declaration does not say so.
    extendable: bool | None = None

    def over(self, inherited: Parameter | None) -> Parameter:
        """Return this declaration with the missing description and bounds of an inherited one."""
        if inherited is None:
            return self
        extendable = inherited.extendable if self.extendable is None else self.extendable
        description = self.description or inherited.description
        return Parameter(self.default, description, {**inherited.bounds, **self.bounds}, extendable)


def param(
    default: Any,
    description: str = "",
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    extendable: bool | None = None,
) -> Any:
    """Declare a parameter of a Program, from which its flag, TOML key, checks and help are derived.

    The annotation in the class gives the type: int, float, bool, str, Path, a Literal of texts or whole numbers, one of
    these `| None`, or a list of one. A subclass that declares an inherited parameter again, or only assigns a value
    (`steps = 500`), sets a new default; the type, the description and the bounds are inherited unless they are given.

    Parameters
    ----------
    default
        The default value, which is checked like every value: infinities and NaN are refused. With `...` the user must
        give a value.
    description
        The meaning and the unit, for `--help`.
    ge, gt, le, lt
        Bounds of a number, or of each number of a list: at least, greater than, at most, less than.
    extendable
        Whether `anyrank resume` may give a larger value of a number, because the State after any step is the same with
        it. By default only a whole number `steps` is extendable.

    Returns
    -------
    Any
        The declaration. On an instance of the program the attribute is the value.

    Examples
    --------
    >>> class Decay(Program):
    ...     n: int = param(64, "number of cells", ge=1)
    >>> Decay(n=8).n
    8
    """
    bounds = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    given = {name: bound for name, bound in bounds.items() if bound is not None}
    return Parameter(default, description, given, extendable)
