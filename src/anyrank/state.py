"""State: the members that a Program declares; a checkpoint holds exactly these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from anyrank import memory
from anyrank.errors import AnyrankError, UsageError, of_all_ranks
from anyrank.exchange.advance import advance
from anyrank.exchange.boundaries.declare import Declared
from anyrank.exchange.forcing import WithForcing
from anyrank.field import Field
from anyrank.grid import Grid
from anyrank.kernel import BODIES
from anyrank.layout import Layout
from anyrank.member import Dataset, Member, Scalar, check_dtype, digest_of
from anyrank.numerics.random import Philox
from anyrank.world import World

__all__ = ["Field", "Scalar", "State", "advance", "check_scalars"]

M = TypeVar("M", bound=Member)


class State(WithForcing):
    """The members that a Program declares, by name, and the number of their step.

    Members are attributes: `state.T` is a Field or another member given to `add`, and `state.hits` the value of a
    Scalar, to which `state.hits += 1` assigns. Declarations are collective: all ranks declare the same members in the
    same order. The runtime creates the State of a run.

    Parameters
    ----------
    world : World
        The ranks that share the members.
    split : str
        The domain decomposition: see `Layout.bricks`.
    seed : int
        The seed of `random`.
    halo_steps : int
        The number of steps between halo exchanges.
    folder : Path, optional
        The run folder, in which a program may write files; None without a run.
    memory_limit : int, optional
        The bytes of memory for the data of a rank: see `budget`.
    weights : sequence of float
        The relative speed of each rank: see `Layout.bricks`.

    Attributes
    ----------
    step : int
        The number of steps since `setup`.
    members : dict of str to Member
        The members by name, in the order of their declaration.

    Examples
    --------
    >>> state = State(World())
    >>> T = state.field("T", (2, 3), unit="K")
    >>> state.T[...] = 20.0
    >>> exact.sum(state.T)
    120.0
    """

    step: int
    world: World
    folder: Path | None
    members: dict[str, Member]

    def __init__(
        self,
        world: World,
        split: str = "auto",
        seed: int = 0,
        halo_steps: int = 1,
        *,
        folder: Path | None = None,
        memory_limit: int | None = None,
        weights: Sequence[float] = (),
    ):
        self.__dict__.update(world=world, split=split, seed=seed, step=0, members={}, device=BODIES.device, _layouts={})
        self.__dict__.update(halo_steps=halo_steps, folder=folder, memory_limit=memory_limit, weights=tuple(weights))

    def add(self, member: M) -> M:
        """Declare a member: an attribute of the State, and a part of every checkpoint. Collective.

        Parameters
        ----------
        member : Member
            A Field, Scalar or Table, or any object with the methods of `Member`.

        Returns
        -------
        Member
            The same object.

        Raises
        ------
        UsageError
            If its name is not valid for an attribute, or in use.
        TypeError
            If it lacks a method of `Member`.

        Examples
        --------
        >>> state = State(World())
        >>> words = state.add(Table("words", state.world, {"word": "text"}))
        >>> state.words is words
        True
        """
        if not isinstance(member, Member):
            raise TypeError(f"state.add takes a member of a State, such as a Table, and not {member!r}: see Member")
        name = member.name
        if not name.isidentifier() or name.startswith("_") or name in self.__dict__ or hasattr(type(self), name):
            raise UsageError(f"{name!r} cannot name a member of the state: use an identifier that State does not use.")
        if name in self.members:
            raise UsageError(f"{name!r} is declared twice: give each member of the state its own name.")
        self.members[name] = member
        return member

    def field(
        self,
        name: str,
        shape: Sequence[int],
        dtype: DTypeLike = np.float64,
        *,
        unit: str = "",
        description: str = "",
        halo: int | Sequence[int] = 0,
        boundary: Declared = "periodic",
        boundary_value: Declared = None,
        dims: Sequence[str] = (),
        components: int | None = None,
        frames: bool = False,
    ) -> Field:
        """Return a new Field on a grid of its own, whose values are zero. Collective.

        Parameters
        ----------
        name : str
            The name of the field: `state.NAME`.
        shape, dtype
            The global shape, and the dtype of the elements.
        unit, description : str
            The unit and the meaning of the values, for checkpoints and plots.
        halo : int or sequence of int
            The number of layers of ghost cells, of all axes or of each.
        boundary, boundary_value, dims
            See `grid`.
        components, frames
            See `Grid.field`.

        Raises
        ------
        UsageError
            If the shape is too small for the ranks and the halo or too large for an array, or an argument is invalid.
        """
        grid = Grid(
            self, shape, dims=dims, halo=halo, boundary=boundary, boundary_value=boundary_value, name=f"field {name}"
        )
        return grid.field(name, dtype, components=components, unit=unit, description=description, frames=frames)

    def constant(self, name: str, shape: Sequence[int], dtype: DTypeLike = np.float64, **options: Any) -> Field:
        """Return a new Field whose values only the method `constants` of the program sets. Collective.

        It is in no checkpoint: `constants` is called again when a run is resumed. Its halo is exchanged once.

        Parameters
        ----------
        name, shape, dtype, **options
            See `field`.
        """
        kinds = {"unit", "description", "components", "frames"}
        grid = Grid(self, shape, name=f"constant {name}", **{k: v for k, v in options.items() if k not in kinds})
        return grid.constant(name, dtype, **{k: v for k, v in options.items() if k in kinds})

    def grid(
        self,
        shape: Sequence[int],
        *,
        dims: Sequence[str] = (),
        spacing: float | Sequence[float] = 1.0,
        origin: float | Sequence[float] = 0.0,
        unit: str | Sequence[str] = "",
        halo: int | Sequence[int] = 1,
        boundary: Declared = "periodic",
        boundary_value: Declared = None,
    ) -> Grid:
        """Return a Grid: a domain whose Fields share a decomposition, staggered ones too. Collective.

        Parameters
        ----------
        shape : sequence of int
            The number of cells per axis.
        dims : sequence of str
            The names of the axes.
        spacing : float or sequence of float
            The distance of the points, of all axes or of each; for `neumann` and coordinates.
        origin, unit : float, str, or a sequence of these
            The coordinate of the lower face of the first cell, and the unit of lengths, for coordinates in files.
        halo : int or sequence of int
            The number of layers of ghost cells, of all axes or of each.
        boundary : str, callable, sequence or dict
            The boundary condition of all sides; or one entry for each axis, in a sequence or by the names of the axes.
            The entry of an axis may be a pair, for the lower and the upper side. Conditions are `periodic`, `fixed`,
            `neumann`, `reflect`, `antireflect`, `extrapolate` and functions: see `anyrank.exchange.boundaries`.
        boundary_value : number, callable, sequence or dict
            The values of `fixed`, `neumann` and `antireflect`, with the same structure; 0 if not given. A callable is
            called as `value(*indices, step)` with one array of global indices per axis.

        Returns
        -------
        Grid
            The grid. Its methods `field` and `constant` declare Fields.

        Raises
        ------
        UsageError
            If the shape is too small for the ranks and the halo, or an argument is not valid.

        Examples
        --------
        >>> state = State(World())
        >>> plate = state.grid((4, 6), dims=("y", "x"), boundary={"y": ("fixed", "neumann")})
        >>> plate.field("T", unit="K", boundary_value={"y": (100.0, None)}).shape
        (4, 6)
        """
        names: dict[str, Any] = {"dims": dims, "spacing": spacing, "origin": origin, "unit": unit, "halo": halo}
        return Grid(self, shape, boundary=boundary, boundary_value=boundary_value, **names)

    def scalar(self, name: str, value: Any, *, unit: str = "", description: str = "") -> Scalar:
        """Return a new Scalar of the State. Collective.

        Parameters
        ----------
        name : str
            The name of the scalar: `state.NAME` is its value.
        value : bool, int, float or complex
            The initial value, the same on all ranks. Its type is that of the Scalar: bool, int64, float64, complex128.
        unit, description : str
            The unit and the meaning of the value, for checkpoints.

        Raises
        ------
        UsageError
            If the name is not valid or in use, or the type cannot be stored.
        """
        check_dtype(name, np.asarray(value).dtype)
        scalar = Scalar(name, np.asarray(value).dtype, unit, description, value)
        scalar.assign(value)
        return self.add(scalar)

    def layout(self, shape: tuple[int, ...], halo: int | Sequence[int] = 0) -> Layout:
        """Return the Layout that the fields of a shape share. Not collective.

        The field with the widest halo must be declared first. A shape that differs from an earlier one by at most one
        along each axis, such as that of faces from that of cells, is cut at the same indices: the last rank along the
        axis has one element more or less.

        Parameters
        ----------
        shape : tuple of int
            The global shape.
        halo : int or sequence of int
            The number of layers of ghost cells, of all axes or of each.

        Raises
        ------
        UsageError
            If the halo is wider than a rank's part.
        """
        layouts: dict[tuple[int, ...], tuple[Layout, tuple[int, ...]]] = self._layouts
        halos = (halo,) * len(shape) if isinstance(halo, int) else tuple(halo)
        widths = tuple(h * self.halo_steps for h in halos)
        if shape not in layouts:
            near = next((layout for layout, _ in layouts.values() if layout.is_near(shape)), None)
            new = near.extended(shape) if near is not None else self._bricks(shape, widths)
            layouts[shape] = new, halos
        layout, _ = layouts[shape]
        for cut, width in zip(layout.cuts, widths, strict=True):
            if any(b - a < width for a, b in pairwise(cut)):
                raise UsageError(
                    f"a halo of {width} is wider than a rank's part of {shape}, which fits that of the first field: "
                    "declare the field with the widest halo first."
                )
        return layout

    def widest_halo(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the halo of the first field of a shape, per axis (for the runtime)."""
        halos: tuple[int, ...] = self._layouts[shape][1]
        return halos

    def _bricks(self, shape: tuple[int, ...], widths: tuple[int, ...]) -> Layout:
        try:
            return Layout.bricks(shape, self.world, self.split, widths, self.weights)
        except UsageError as error:
            if self.halo_steps == 1:
                raise
            raise UsageError(f"--halo-steps {self.halo_steps}: {error} Or use fewer --halo-steps.") from None

    @property
    def xp(self) -> Any:
        """The module of functions for arrays of the device: numpy on the host, cupy on a GPU."""
        return np if self.device.on_host else self.device.cupy

    def __getattr__(self, name: str) -> Any:
        member = self.__dict__.get("members", {}).get(name)
        if member is None:
            raise AttributeError(f"the state has no member {name!r}; declared are {sorted(self.members)}")
        return member.value if isinstance(member, Scalar) else member

    def __setattr__(self, name: str, value: Any) -> None:
        member = self.members.get(name)
        if isinstance(member, Scalar):
            member.assign(value)
        elif member is not None:
            kind, fix = type(member).__name__, "[...] = …" if hasattr(member, "__setitem__") else ".add(…)"
            raise AttributeError(f"{name} is a {kind}: write its values with state.{name}{fix}")
        elif name in self.__dict__:
            self.__dict__[name] = value
        else:
            raise AttributeError(f"the state has no member {name!r}: declare it, or it is lost at resume")

    def budget(self) -> int:
        """Return the bytes of memory that each rank may still allocate for data, the same on all ranks. Collective.

        The result is the minimum over the ranks of the rest of --memory-limit, or of three quarters of the rank's share
        of the free memory of its node. UsageError is raised on all ranks if it is too small to work with.
        """
        sharing = self.world.node_size
        with self.world.raise_on_all_ranks():
            own = memory.budget(self.memory_limit, sharing)
        return int(self.world.allreduce(np.array([own]), "min")[0])

    def random(self, stream: int = 0) -> Philox:
        """Return the random numbers of the run's seed. Not collective.

        Parameters
        ----------
        stream : int
            The number of the stream; use another one for each independent quantity.
        """
        return Philox(self.seed, stream)

    def fields(self) -> Iterator[Field]:
        """Return the Fields in the order of their declaration. Not collective."""
        return (member for member in self.members.values() if isinstance(member, Field))

    def scalars(self) -> Iterator[Scalar]:
        """Return the Scalars in the order of their declaration. Not collective."""
        return (member for member in self.members.values() if isinstance(member, Scalar))

    def allocate(self) -> None:
        """Allocate the arrays of all Fields now, or raise MemoryError (for the runtime)."""
        for field in self.fields():
            _ = field.storage

    def finish_constants(self) -> None:
        """Exchange the halos of constants, and protect their values (for the runtime). Collective."""
        for field in self.fields():
            if field.constant:
                if any(field.margin):
                    field.exchange()
                field.valid, field.frozen = field.margin, True

    def stored(self) -> dict[str, Dataset]:
        """Return the parts of a checkpoint of the present values, by name. Collective."""
        return {name: item for member in self.members.values() for name, item in member.stored().items()}

    def digests(self) -> dict[str, int]:
        """Return the digest of each part of a checkpoint, by name: of every member, or of its parts. Collective.

        AnyrankError is raised if a Scalar differs between ranks.
        """
        check_scalars(self)
        return {name: item.digest() for name, item in self.stored().items()}

    def digest(self) -> int:
        """Return one digest of the whole state, 64 bits, the same for any number of ranks. Collective."""
        stored = self.stored()
        check_scalars(self)
        return digest_of(stored, {name: item.digest() for name, item in stored.items()})


def check_scalars(state: State) -> None:
    """Raise AnyrankError on all ranks if a Scalar is not the same on all ranks. Collective."""
    scalars = [*state.scalars()]
    own = np.array([scalar.digest() for scalar in scalars], np.uint64)
    differ = state.world.allreduce(own, "min") != state.world.allreduce(own, "max")
    if differ.any():
        scalar = scalars[int(np.argmax(differ))]
        rule = f"must be the same on all ranks but is {state.world.comm.allgather(scalar.value)}, by rank."
        fix = "Reduce values of one rank, as exact.sum(field) does, and share what one rank reads, by world.bcast."
        raise of_all_ranks(AnyrankError(f"the Scalar {scalar.name} {rule} {fix}"))
