"""State: the members that a Program declares; a checkpoint holds exactly these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from anyrank import memory
from anyrank.errors import AnyrankError, UsageError, of_all_ranks
from anyrank.field import Field, advance
from anyrank.kernel import BODIES
from anyrank.layout import Layout
from anyrank.member import Dataset, Member, Scalar, digest_of
from anyrank.numerics.random import Philox
from anyrank.world import World

__all__ = ["Field", "Scalar", "State", "advance", "check_scalars"]

M = TypeVar("M", bound=Member)


class State:
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
    ):
        self.__dict__.update(world=world, split=split, seed=seed, step=0, members={}, device=BODIES.device, _layouts={})
        self.__dict__.update(halo_steps=halo_steps, folder=folder, memory_limit=memory_limit)

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
        halo: int = 0,
        boundary: str | Sequence[str] = "periodic",
        boundary_value: float = 0.0,
        dims: Sequence[str] = (),
    ) -> Field:
        """Return a new Field of the State, whose values are zero. Collective.

        Parameters
        ----------
        name : str
            The name of the field: `state.NAME`.
        shape, dtype
            The global shape, and the dtype of the elements.
        unit, description : str
            The unit and the meaning of the values, for checkpoints and plots.
        halo : int
            The number of layers of ghost cells.
        boundary : {"periodic", "fixed"} or sequence of these
            The boundary condition of all axes, or of each axis. Ghost cells outside a `fixed` boundary hold
            `boundary_value`.
        boundary_value : float
            The value outside fixed boundaries.
        dims : sequence of str
            The names of the axes.

        Raises
        ------
        UsageError
            If the shape is too small for the ranks and the halo or too large for an array, or an argument is invalid.
        """
        shape = tuple(int(n) for n in shape)
        boundary = (boundary,) * len(shape) if isinstance(boundary, str) else tuple(boundary)
        _check_geometry(name, shape, boundary, halo)
        dtype = _dtype_of(name, dtype)
        _check_size(name, shape, dtype)
        names = tuple(dims) or tuple(f"axis{axis}_{n}" for axis, n in enumerate(shape))
        layout = self.layout(shape, halo)
        return self.add(
            Field(
                name,
                layout,
                dtype,
                self.device,
                unit=unit,
                description=description,
                halo=halo,
                boundary=boundary,
                boundary_value=boundary_value,
                dims=names,
                margin=halo + (self.halo_steps - 1) * max(halo, self._layouts[shape][1]),
            )
        )

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
        _check_type(name, np.asarray(value).dtype)
        scalar = Scalar(name, np.asarray(value).dtype, unit, description, value)
        scalar.assign(value)
        return self.add(scalar)

    def layout(self, shape: tuple[int, ...], halo: int = 0) -> Layout:
        """Return the Layout that the fields of a shape share. Not collective.

        The field with the widest halo must be declared first. A shape that differs from an earlier one by at most one
        along each axis, such as that of faces from that of cells, is cut at the same indices: the last rank along the
        axis has one element more or less.

        Parameters
        ----------
        shape : tuple of int
            The global shape.
        halo : int
            The number of layers of ghost cells.

        Raises
        ------
        UsageError
            If the halo is wider than a rank's part.
        """
        layouts: dict[tuple[int, ...], tuple[Layout, int]] = self._layouts
        width = halo * self.halo_steps
        if shape not in layouts:
            near = next((layout for layout, _ in layouts.values() if layout.is_near(shape)), None)
            new = near.extended(shape) if near is not None else self._bricks(shape, width)
            layouts[shape] = new, halo
        layout, _ = layouts[shape]
        if any(b - a < width for cut in layout.cuts for a, b in pairwise(cut)):
            raise UsageError(f"a halo of {width} is wider than a rank's part of {shape}: declare that field first.")
        return layout

    def _bricks(self, shape: tuple[int, ...], width: int) -> Layout:
        try:
            return Layout.bricks(shape, self.world, self.split, width)
        except UsageError as error:
            if self.halo_steps == 1:
                raise
            raise UsageError(f"--halo-steps {self.halo_steps}: {error} Or use fewer --halo-steps.") from None

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


def _check_geometry(name: str, shape: tuple[int, ...], boundary: tuple[str, ...], halo: int) -> None:
    if len(boundary) != len(shape) or not set(boundary) <= {"periodic", "fixed"}:
        raise UsageError(f"field {name}: boundary {boundary} must be periodic or fixed for each axis of {shape}.")
    if min(shape, default=0) < 1 or halo < 0:
        raise UsageError(f"field {name}: shape {shape} needs at least one axis, sizes ≥ 1, and halo {halo} ≥ 0.")


def _dtype_of(name: str, dtype: DTypeLike) -> np.dtype[Any]:
    try:
        found = np.dtype(dtype)
    except TypeError as error:
        raise UsageError(f"{name}: {error}. Use bool, integers, float64, complex128…") from None
    _check_type(name, found)
    return found


def _check_type(name: str, dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "biufc" or dtype.itemsize > 16 or dtype.char in "gG":
        raise UsageError(
            f"{name}: dtype {dtype} cannot be stored in a checkpoint: use bool, integers, float64, complex128…"
        )


def _check_size(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    size = prod(shape) * dtype.itemsize
    if size > np.iinfo(np.int64).max:
        raise UsageError(
            f"field {name}: {'×'.join(map(str, shape))} elements of {dtype} are {size} bytes, and an array has at most "
            f"{np.iinfo(np.int64).max}. Use fewer cells."
        )


def check_scalars(state: State) -> None:
    """Raise AnyrankError on all ranks if a Scalar is not the same on all ranks. Collective."""
    scalars = [*state.scalars()]
    own = np.array([scalar.digest() for scalar in scalars], np.uint64)
    differ = state.world.allreduce(own, "min") != state.world.allreduce(own, "max")
    if differ.any():
        scalar = scalars[int(np.argmax(differ))]
        values = state.world.comm.allgather(scalar.value)
        message = f"the Scalar {scalar.name} must be the same on all ranks but is {values}, by rank."
        raise of_all_ranks(AnyrankError(message))
