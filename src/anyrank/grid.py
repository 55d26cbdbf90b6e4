"""Grid: a rectangular domain, whose Fields share one domain decomposition."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from anyrank.device import Device
from anyrank.errors import UsageError
from anyrank.exchange.boundaries import Periodic
from anyrank.exchange.boundaries.declare import Declared, Sides, check, conditions, per_side
from anyrank.field import Field
from anyrank.layout import Layout
from anyrank.member import check_dtype


class Owner(Protocol):
    """The attributes of a State that its Grids use."""

    device: Device
    step: int
    halo_steps: int

    def add(self, member: Field) -> Field:
        """See `State.add`."""

    def layout(self, shape: tuple[int, ...], halo: int | Sequence[int] = 0) -> Layout:
        """See `State.layout`."""

    def widest_halo(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """See `State.widest_halo`."""


class Grid:
    """A rectangular domain of cells, whose Fields share one domain decomposition. `State.grid` creates it.

    Staggered fields have their points on the faces of cells: the face i of an axis is the lower face of cell i. Along
    an axis with walls there is one face more than there are cells; along a periodic axis there are as many. The faces
    and the cells are cut at the same indices, so that they may go together in one `advance`.

    Attributes
    ----------
    shape : tuple of int
        The number of cells per axis.
    dims : tuple of str
        The names of the axes.
    spacing : tuple of float
        The distance of the points per axis.
    origin : tuple of float
        The coordinate of the lower face of the first cell per axis.
    units : tuple of str
        The unit of the spacing and the origin per axis.
    cells : Layout
        The domain decomposition of the cells.

    Examples
    --------
    >>> state = State(World())
    >>> pipe = state.grid((4,), dims=("x",), boundary="reflect")
    >>> pipe.field("p", unit="Pa").shape, pipe.field("u", at="x", unit="m/s").shape
    ((4,), (5,))
    """

    def __init__(
        self,
        owner: Owner,
        shape: Sequence[int],
        *,
        dims: Sequence[str] = (),
        spacing: float | Sequence[float] = 1.0,
        origin: float | Sequence[float] = 0.0,
        unit: str | Sequence[str] = "",
        halo: int | Sequence[int] = 1,
        boundary: Declared = "periodic",
        boundary_value: Declared = None,
        name: str = "grid",
    ):
        self._owner, self._name = owner, name
        self.shape = tuple(int(n) for n in shape)
        self.dims = tuple(dims) or tuple(f"axis{axis}_{n}" for axis, n in enumerate(self.shape))
        if min(self.shape, default=0) < 1:
            raise UsageError(f"{name}: shape {self.shape} needs at least one axis, and sizes ≥ 1.")
        if len(self.dims) != len(self.shape) or len({*self.dims}) != len(self.dims):
            raise UsageError(f"{name}: dims {self.dims} must be one name for each axis of the shape {self.shape}.")
        self.spacing = tuple(float(d) for d in self._per_axis("spacing", spacing, float))
        if not all(0 < d < np.inf for d in self.spacing):
            raise UsageError(f"{name}: spacing = {spacing} must be positive.")
        self.origin = tuple(float(x) for x in self._per_axis("origin", origin, float))
        if not all(abs(x) < np.inf for x in self.origin):
            raise UsageError(f"{name}: origin = {origin} must be finite.")
        self.units = (unit,) * len(self.shape) if isinstance(unit, str) else tuple(unit)
        if len(self.units) != len(self.shape):
            raise UsageError(f"{name}: unit = {unit!r} must be one unit, or one for each axis of {self.shape}.")
        self.halo = self._halo(halo)
        self._boundary = per_side(f"{name}: boundary", boundary, self.dims, "periodic")
        self._sides = conditions(name, self.dims, self._boundary, boundary_value)
        self._cells: Layout | None = None
        #: The axes along which a field of the grid has points on the walls.
        self.staggered: set[int] = set()
        self._fields: list[Field] = []

    @property
    def cells(self) -> Layout:
        """The domain decomposition of the cells, made for the halos of the grid and of its first field."""
        if self._cells is None:
            self._cells = self._owner.layout(self.shape, self.halo)
        return self._cells

    @property
    def step(self) -> int:
        """The number of the present step."""
        return self._owner.step

    def field(
        self,
        name: str,
        dtype: DTypeLike = np.float64,
        *,
        at: str | Sequence[str] = "centre",
        components: int | None = None,
        unit: str = "",
        description: str = "",
        halo: int | Sequence[int] | None = None,
        boundary: Declared = None,
        boundary_value: Declared = None,
        frames: bool = False,
    ) -> Field:
        """Return a new Field on the grid, whose values are zero. Collective.

        Parameters
        ----------
        name : str
            The name of the field: `state.NAME`.
        dtype
            The dtype of the elements.
        at : str or sequence of str
            Where its points are: `centre` of cells, or on the faces of one axis or of several, by their names.
        components : int, optional
            The number of values at each point: an axis before those of the grid, which is not cut and has no halo.
        unit, description : str
            The unit and the meaning of the values, for checkpoints and plots.
        halo : int or sequence of int, optional
            The number of layers of ghost cells, of all axes or of each; that of the grid if not given.
        boundary, boundary_value
            The boundary conditions, see `State.grid`; those of the grid where not given.
        frames : bool
            Whether a run writes the field into frames.nc unless `--frames` names others.

        Returns
        -------
        Field
            The field.

        Raises
        ------
        UsageError
            If an argument is not valid, or the grid is too small for the ranks and the halo.
        """
        sides: dict[str, Any] = {"boundary": boundary, "boundary_value": boundary_value}
        names: dict[str, Any] = {"unit": unit, "description": description}
        return self._declare(name, dtype, at=at, components=components, halo=halo, frames=frames, **names, **sides)

    def constant(self, name: str, dtype: DTypeLike = np.float64, **options: Any) -> Field:
        """Return a new Field whose values only the method `constants` of the program sets. Collective.

        It is in no checkpoint: `constants` is called again when a run is resumed. Its halo is exchanged once.

        Parameters
        ----------
        name, dtype, **options
            See `field`.

        Returns
        -------
        Field
            The field.
        """
        return self._declare(name, dtype, constant=True, **options)

    def _declare(
        self,
        name: str,
        dtype: DTypeLike,
        *,
        constant: bool = False,
        at: Any = "centre",
        components: int | None = None,
        unit: str = "",
        description: str = "",
        halo: Any = None,
        boundary: Declared = None,
        boundary_value: Declared = None,
        frames: bool = False,
    ) -> Field:
        what, kind = f"field {name}", check_dtype(name, dtype)
        axes, halos = self._axes(what, at), self.halo if halo is None else self._halo(halo, what)
        sides = self._conditions(what, boundary, boundary_value)
        walls = {axis for axis in axes if not isinstance(sides[axis][0], Periodic)}
        shape = tuple(n + (axis in walls) for axis, n in enumerate(self.shape))
        check(what, sides, shape, halos, walls, kind)
        if self._cells is None:
            widest = tuple(max(own, other) for own, other in zip(halos, self.halo, strict=True))
            self._cells = self._owner.layout(self.shape, widest)
        layout = self._owner.layout(self.shape, halos)
        layout = layout.extended(shape) if walls else layout
        if components is not None:
            if int(components) < 1:
                raise UsageError(f"{what}: components={components} must be at least 1.")
            layout = layout.with_components(int(components))
        _check_size(what, layout.shape, kind)
        if walls - self.staggered and any(field.allocated for field in self._fields):
            raise UsageError(f"{what}: declare the staggered fields of a grid before the first use of its fields.")
        self.staggered |= walls
        further, widest = self._owner.halo_steps - 1, self._owner.widest_halo(self.shape)
        field = Field(
            name,
            layout,
            kind,
            self._owner.device,
            unit=unit,
            description=description,
            dims=self._dims_of(name, components, walls),
            halo=halos,
            margin=[h + further * max(h, most) for h, most in zip(halos, widest, strict=True)],
            sides=sides,
            grid=self,
            faces=sorted(walls),
            on_faces=sorted(axes),
            constant=constant,
            frames=frames,
        )
        self._fields.append(field)
        return self._owner.add(field)

    def _dims_of(self, name: str, components: int | None, walls: set[int]) -> tuple[str, ...]:
        """Return the names of the axes of a field in a checkpoint, where axes with one name have one size."""
        faces = (f"{dim}_face" if axis in walls else dim for axis, dim in enumerate(self.dims))
        return (*(() if components is None else (f"{name}_component",)), *faces)

    def _conditions(self, what: str, boundary: Declared, value: Declared) -> tuple[Sides, ...]:
        if boundary is None and value is None:
            return self._sides
        sides = conditions(what, self.dims, boundary, value, self._boundary)
        for axis, (own, grid) in enumerate(zip(sides, self._sides, strict=True)):
            if isinstance(own[0], Periodic) != isinstance(grid[0], Periodic):
                raise UsageError(
                    f"{what}: boundary of axis {self.dims[axis]} is {own[0]}, and that of the grid {grid[0]}: "
                    "an axis is periodic for all fields of a grid or for none."
                )
        return sides

    def _axes(self, what: str, at: str | Sequence[str]) -> tuple[int, ...]:
        names = [at] if isinstance(at, str) else [*at]
        if names == ["centre"]:
            return ()
        unknown = [name for name in names if name not in self.dims]
        if unknown or len({*names}) != len(names):
            raise UsageError(
                f"{what}: at={at!r} must be 'centre', or one or several of the axes {', '.join(self.dims)}."
            )
        return tuple(self.dims.index(name) for name in names)

    def _halo(self, halo: int | Sequence[int], what: str = "") -> tuple[int, ...]:
        halos = tuple(int(h) for h in self._per_axis("halo", halo, int))
        if min(halos) < 0:
            raise UsageError(f"{what or self._name}: shape {self.shape} needs a halo ≥ 0, and not {halo}.")
        return halos

    def _per_axis(self, what: str, given: Any, kind: type) -> Sequence[Any]:
        values = [given] * len(self.shape) if isinstance(given, int | float | np.number) else [*given]
        if len(values) != len(self.shape) or any(kind(v) != v or kind(v) != kind(v) for v in values):
            raise UsageError(
                f"{self._name}: {what} = {given!r} must be one number, or one for each axis of {self.shape}."
            )
        return values


def _check_size(what: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    size = prod(shape) * dtype.itemsize
    if size > np.iinfo(np.int64).max:
        raise UsageError(
            f"{what}: {'×'.join(map(str, shape))} elements of {dtype} are {size} bytes, and an array has at most "
            f"{np.iinfo(np.int64).max}. Use fewer cells."
        )
