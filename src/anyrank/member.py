"""Member: the protocol of the members of a State, for checkpoints, start-up checks and memory estimates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import DTypeLike

from anyrank.errors import UsageError
from anyrank.layout import Layout
from anyrank.numerics.digest import digest_of_parts, local_digest


class Dataset(Protocol):
    """One dataset of a checkpoint: a Field, which is distributed over the ranks, or a Scalar."""

    name: str
    path: str
    dtype: np.dtype[Any]
    unit: str
    description: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The global shape."""

    def digest(self) -> int:
        """Return the digest of the values, 64 bits. Collective for a Field."""


class StoredField(Dataset, Protocol):
    """The attributes of a Field that a checkpoint is read into."""

    layout: Layout

    @property
    def local(self) -> Any:
        """The block of this rank without its halo."""

    def __setitem__(self, key: Any, values: Any) -> None: ...


#: The parts of a checkpoint, by name.
Stored: TypeAlias = Mapping[str, Dataset]


class Source(Protocol):
    """The datasets of a checkpoint, by their names in `Member.stored`.

    Each dataset is compared with its digest when it is read. All methods except `shape` and `value` are collective. All
    raise CheckpointError on all ranks if the file is damaged.
    """

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the global shape of an array."""

    def value(self, name: str) -> Any:
        """Return the value of a Scalar."""

    def read(self, name: str, layout: Layout) -> np.ndarray:
        """Return this rank's part of an array."""

    def fill(self, field: StoredField) -> None:
        """Read the array with the name of a Field into its block, in pieces."""


@runtime_checkable
class Member(Protocol):
    """A member of a State: a Field, a Scalar, a Table, or another object with these methods.

    Between `stored` and the end of the checkpoint the member may change, but not the arrays that it returned.

    Attributes
    ----------
    name : str
        The name of the member: `state.NAME`.
    """

    name: str

    @property
    def nbytes(self) -> int:
        """The bytes of memory that it uses on this rank."""

    def describe(self) -> str:
        """Return a description of its declaration, which must be the same on all ranks."""

    def kinds(self) -> Mapping[str, str]:
        """Return the dtype of each of its datasets, by name, followed by a space and the shape if that is declared."""

    def stored(self) -> Stored:
        """Return the parts of a checkpoint of its present values; names are NAME or NAME/PART. Collective."""

    def load(self, source: Source) -> None:
        """Restore the values from a checkpoint, which may be of another number of ranks. Collective.

        Parameters
        ----------
        source : Source
            The datasets of the checkpoint.
        """

    def digest(self) -> int:
        """Return the digest of its values, 64 bits, the same on all ranks and for any number of ranks. Collective."""


@dataclass
class Scalar:
    """A value that is the same on all ranks. `State.scalar` creates it; a program uses the value, `state.NAME`.

    Parameters
    ----------
    name : str
        The name in the State.
    dtype : dtype
        The type of the value: bool, an integer, a float or a complex type.
    unit, description : str
        The unit and the meaning of the value, for checkpoints.
    value : bool, int, float or complex
        The present value.

    Examples
    --------
    >>> state = State(World())
    >>> hits = state.scalar("hits", 0)
    >>> state.hits += 3
    >>> hits.value, hits.dtype
    (3, dtype('int64'))
    """

    shape: ClassVar[tuple[int, ...]] = ()
    name: str
    path: str = field(init=False)
    dtype: np.dtype[Any]
    unit: str
    description: str
    value: Any

    def __post_init__(self) -> None:
        self.path = f"scalars/{self.name}"

    def assign(self, value: Any) -> None:
        """Set the value. Not collective: all ranks assign the same value.

        Parameters
        ----------
        value : bool, int, float or complex
            The new value.

        Raises
        ------
        ValueError
            If the dtype cannot hold it.
        """
        array = np.asarray(value)
        if array.ndim or (self.dtype.kind in "iu" and array.dtype.kind not in "iub"):
            raise ValueError(f"{value!r} is not a single value of type {self.dtype}")
        self.value = self.dtype.type(value).item()

    @property
    def nbytes(self) -> int:
        """See `Member`."""
        return self.dtype.itemsize

    def describe(self) -> str:
        """See `Member`."""
        return f"scalar {self.dtype} {self.unit}".rstrip()

    def kinds(self) -> Mapping[str, str]:
        """See `Member`."""
        return {self.name: f"{self.dtype.str} ()"}

    def stored(self) -> Stored:
        """See `Member`."""
        return {self.name: self}

    def load(self, source: Source) -> None:
        """See `Member`."""
        self.assign(source.value(self.name))

    def digest(self) -> int:
        """Return the digest of the value, 64 bits. Not collective."""
        return local_digest(np.array([self.value], self.dtype), (1,), (0,))


def digest_of(stored: Stored, digests: Mapping[str, int]) -> int:
    """Return one digest of all parts of a checkpoint, from their digests."""
    return digest_of_parts({name: (item.dtype.str, item.shape, digests[name]) for name, item in stored.items()})


def check_dtype(name: str, dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype of a member; raises UsageError if checkpoints cannot store it (for the runtime)."""
    try:
        found = np.dtype(dtype)
    except TypeError as error:
        raise UsageError(f"{name}: {error}. Use bool, integers, float64, complex128…") from None
    if found.kind not in "biufc" or found.itemsize > 16 or found.char in "gG":
        raise UsageError(
            f"{name}: dtype {found} cannot be stored in a checkpoint: use bool, integers, float64, complex128…"
        )
    return found
