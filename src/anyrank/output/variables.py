"""The variables of frames.nc: a field or a part of it, its axes, their coordinates, and its type in the file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from anyrank.errors import UsageError
from anyrank.layout import Layout
from anyrank.member import Scalar
from anyrank.output.expressions import Expression, parse_frames, resolve_index, resolve_range
from anyrank.state import Field, State

#: The dimension of the frames, and that of the two bounds of a cell.
STEP, BOUNDS = "step", "bounds"
#: The types of netCDF-4 for what it does not have.
_IN_FILE = {"b1": "i1", "f2": "<f4"}


@dataclass(frozen=True)
class Axis:
    """One axis of a field in the frames: which of its points are written, and where these are.

    The point i of the field is at `origin + (i + shift) * spacing`; an axis of components has no spacing.
    """

    name: str
    #: The name of the dimension in the file.
    dim: str
    size: int
    first: int
    count: int
    step: int
    #: Whether one index is written, so that the variable does not have the axis.
    single: bool = False
    averaged: bool = False
    origin: float = 0.0
    spacing: float = 0.0
    shift: float = 0.5
    unit: str = ""
    #: Whether the first and the last point are on walls.
    walls: bool = False
    #: What the name of the variable says about the axis.
    mark: str = ""

    @property
    def kept(self) -> bool:
        """Whether the variable has this axis."""
        return not self.single and not self.averaged

    @property
    def index_name(self) -> str:
        """The name of the coordinate of a single index."""
        return f"{self.dim}_{self.first}"

    def same_points(self, other: Axis) -> bool:
        """Return whether another axis has the same points, with the same names and units."""
        return replace(self, averaged=False, name="", mark="") == replace(other, averaged=False, name="", mark="")

    @property
    def indices(self) -> np.ndarray:
        """The indices of the points along the axis of the field."""
        return self.first + self.step * np.arange(self.count)

    @property
    def values(self) -> np.ndarray:
        """The coordinates of the points: float64, or int32 for components."""
        if not self.spacing:
            return self.indices.astype(np.int32)
        return self.origin + (self.indices + self.shift) * self.spacing

    @property
    def bounds(self) -> np.ndarray:
        """The lower and the upper bound of the cell of each point, within walls: float64 of shape (count, 2)."""
        edges = self.indices[:, None] + self.shift + np.array([-0.5, 0.5])
        return np.asarray(self.origin + (np.clip(edges, 0, self.size - 1) if self.walls else edges) * self.spacing)


@dataclass(frozen=True)
class Variable:
    """One dataset of frames.nc: at each frame it has the values of a field, of a part of it, or of a mean."""

    name: str
    field: Field
    axes: tuple[Axis, ...]
    dtype: np.dtype[Any]
    #: `real` or `imag` for one part of complex values.
    part: str = ""
    description: str = ""
    #: Whether it is the mean over the steps since the frame before.
    over_steps: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one frame."""
        return tuple(axis.count for axis in self.axes if axis.kept)

    @property
    def averaged(self) -> tuple[int, ...]:
        """The axes of the field that are averaged."""
        return tuple(number for number, axis in enumerate(self.axes) if axis.averaged)

    @property
    def nbytes(self) -> int:
        """The bytes of one frame."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def layout(self) -> Layout:
        """Return the layout of the written points of the field, also of those to average; an index has size 1."""
        cuts = [
            [min(max(-(-(border - axis.first) // axis.step), 0), axis.count) for border in cut]
            for axis, cut in zip(self.axes, self.field.layout.cuts, strict=True)
        ]
        return Layout([axis.count for axis in self.axes], self.field.world, cuts)

    def slices(self, layout: Layout) -> tuple[slice, ...]:
        """Return the written points of this rank as slices of its block of the field."""
        parts = []
        for axis, a, b, start in zip(self.axes, layout.start, layout.stop, self.field.layout.start, strict=True):
            low = axis.first + a * axis.step - start
            parts.append(slice(low, low + (b - a - 1) * axis.step + 1, axis.step) if b > a else slice(0, 0))
        return tuple(parts)

    def convert(self, values: np.ndarray) -> np.ndarray:
        """Return the part of complex values that the variable has; other values unchanged."""
        return np.asarray(getattr(values, self.part)) if self.part else values

    @property
    def cell_methods(self) -> str:
        """The averaged axes in the words of the CF conventions; empty without a mean."""
        names = [STEP] * self.over_steps + [axis.dim for axis in self.axes if axis.averaged]
        return f"{': '.join(names)}: mean" if names else ""


def variables_of(state: State, text: str | None, stride: int, kind: str) -> list[Variable]:
    """Return the variables of frames.nc. Not collective.

    Parameters
    ----------
    state : State
        The declared State.
    text : str or None
        The value of --frames; None for the fields that are declared with `frames=True`.
    stride : int
        The distance of the written points along the axes of a grid for which the text has no index or step.
    kind : str
        The type of floating-point numbers in the file, `float32` or `float64`; empty for that of each field.

    Raises
    ------
    UsageError
        If there is no such field or axis, an index is out of range, or the type cannot hold the values.
    """
    if text is None:
        text = ",".join(field.name for field in state.fields() if field.frames)
    expressions = parse_frames(text) if text else []
    found = _name_apart(chain.from_iterable(_variables(state, each, stride, kind) for each in expressions))
    names = [variable.name for variable in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"--frames {text!r} has {twice} twice. Remove one of them.")
    return found


def _name_apart(variables: Iterable[Variable]) -> list[Variable]:
    """Give axes of one name and other coordinates other names, and variables with the name of an axis, too."""
    known: dict[str, Axis] = {}
    result = []
    for variable in variables:
        axes = list(variable.axes)
        for number, axis in enumerate(axes):
            if axis.kept and not known.setdefault(axis.dim, axis).same_points(axis):
                axes[number] = replace(axis, dim=f"{axis.dim}_{variable.field.name}")
                known.setdefault(axes[number].dim, axes[number])
        result.append(replace(variable, axes=tuple(axes)))
    used = {STEP, BOUNDS, *known, *(f"{dim}_{BOUNDS}" for dim in known)}
    used |= {axis.index_name for variable in result for axis in variable.axes if axis.single and axis.spacing}
    return [replace(v, name=f"{v.name}_values") if v.name in used else v for v in result]


def _variables(state: State, expression: Expression, stride: int, kind: str) -> list[Variable]:
    field = _field(state, expression)
    axes = _axes(field, expression, stride)
    marks = [axis.mark for axis in axes]
    if expression.mean is not None:
        marks.append("mean" + "".join(f"_{name}" for name in expression.mean))
    name = "_".join([field.name, *filter(None, marks)])
    dtype = field.dtype if expression.mean is None or field.dtype.kind in "fc" else np.dtype(np.float64)
    parts = ("real", "imag") if dtype.kind == "c" else ("",)
    real = np.dtype(f"f{dtype.itemsize // 2}") if dtype.kind == "c" else dtype
    stored = _stored(expression, real, kind)
    plain, over = expression.text == field.name, STEP in (expression.mean or ())
    description = field.description if plain else f"{field.description or field.name}: {expression.text}"
    return [
        Variable("_".join(filter(None, (name, part))), field, axes, stored, part, _with_part(description, part), over)
        for part in parts
    ]


def _with_part(description: str, part: str) -> str:
    return ", ".join(filter(None, (description, {"real": "real part", "imag": "imaginary part"}.get(part))))


def _field(state: State, expression: Expression) -> Field:
    member, what = state.members.get(expression.field), f"--frames {expression.text}"
    if isinstance(member, Field):
        return member
    names = [field.name for field in state.fields()]
    fix = f"Its fields are {', '.join(names)}." if names else "It has no fields."
    if member is not None:
        kind = "Scalar" if isinstance(member, Scalar) else type(member).__name__
        raise UsageError(f"{what}: {member.name} is a {kind}, and frames are made of Fields. {fix}")
    fix = _fix(expression.field, names, fix)
    raise UsageError(f"{what}: the program has no field {expression.field!r}. {fix}")


def _fix(name: str, names: Sequence[str], otherwise: str) -> str:
    """Return a question for the most similar name, also in other letters; without one, the other sentence."""
    lower = {other.lower(): other for other in names}
    close = difflib.get_close_matches(name.lower(), lower, 1)
    return f"Did you mean {lower[close[0]]}?" if close else otherwise


def _axes(field: Field, expression: Expression, stride: int) -> tuple[Axis, ...]:
    axes = [_whole(field, number) for number in range(field.layout.ndim)]
    _check_names(f"--frames {expression.text}", expression, [axis.name for axis in axes])
    return tuple(_part(axis, expression, stride if axis.spacing else 1) for axis in axes)


def _whole(field: Field, number: int) -> Axis:
    """Return an axis of a field with all of its points."""
    size, grid, axis = field.shape[number], field.grid, number - len(field.components)
    if axis < 0 or grid is None:
        return Axis("component", field.dims[number], size, 0, size, 1)
    on_faces = axis in field.on_faces
    return Axis(
        *(grid.dims[axis], f"{grid.dims[axis]}_face" if on_faces else grid.dims[axis], size, 0, size, 1),
        origin=grid.origin[axis],
        spacing=grid.spacing[axis],
        shift=0.0 if on_faces else 0.5,
        unit=grid.units[axis],
        walls=axis in field.faces,
    )


def _check_names(what: str, expression: Expression, names: Sequence[str]) -> None:
    given = [*expression.parts, *(name for name in expression.mean or () if name != STEP)]
    unknown = next((name for name in given if name not in names), None)
    if unknown is not None:
        fix = _fix(unknown, [*names, STEP], f"Its axes are {', '.join(names)}.")
        raise UsageError(f"{what}: {expression.field} has no axis {unknown!r}. {fix}")
    twice = next((name for name in expression.mean or () if (expression.mean or ()).count(name) > 1), None)
    single = next((name for name in expression.mean or () if isinstance(expression.parts.get(name), int)), None)
    if twice or single:
        reason = f"axis {twice or single} is " + ("averaged twice" if twice else "only one index, which has no mean")
        raise UsageError(f"{what}: {reason}. Remove it from mean(…).")


def _part(axis: Axis, expression: Expression, stride: int) -> Axis:
    """Return the axis with the points that the expression and the stride select."""
    what, part = f"--frames {expression.text}", expression.parts.get(axis.name)
    averaged = expression.mean is not None and (not expression.mean or axis.name in expression.mean)
    if isinstance(part, int):
        index = resolve_index(what, axis.name, part, axis.size)
        return replace(axis, first=index, count=1, single=True, mark=f"{axis.name}_{index}")
    first, stop, own = (0, axis.size, None) if part is None else resolve_range(what, axis.name, part, axis.size)
    step = own or (1 if averaged else stride)
    mark = "" if part is None else f"{first}_{stop}" + (f"_{own}" if own else "")
    axis = replace(axis, first=first, count=-(-(stop - first) // step), step=step, averaged=averaged)
    return replace(axis, dim=f"{axis.dim}_{mark}", mark=f"{axis.name}_{mark}") if mark else axis


def _stored(expression: Expression, dtype: np.dtype[Any], kind: str) -> np.dtype[Any]:
    """Return the type in the file; UsageError if it cannot hold every value of an integer."""
    if not kind or dtype.kind == "b":
        return np.dtype(_IN_FILE.get(dtype.str[1:], f"<{dtype.str[1:]}"))
    wanted = np.dtype(f"<{np.dtype(kind).str[1:]}")
    if dtype.kind in "iu" and not np.can_cast(dtype, wanted, "safe"):
        raise UsageError(
            f"--frames-type {kind} cannot hold every value of {expression.field}, which has {dtype}. Use a type that "
            "can, or omit the option: each field then keeps its own type."
        )
    return wanted
