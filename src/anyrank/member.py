"""Member: what a State holds, as checkpoints, start-up checks and memory estimates know it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np

from anyrank.layout import Layout
from anyrank.numerics.digest import combine, local_digest


class Part(Protocol):
    """What a checkpoint holds under one name: a Field, which is split over the ranks, or a Scalar."""

    name: str
    path: str
    dtype: np.dtype[Any]
    unit: str
    description: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The global shape."""

    def digest(self) -> int:
        """64 bits that tell the values. Collective for a Field."""


class Block(Part, Protocol):
    """What is known of a Field where its values are read."""

    layout: Layout

    @property
    def local(self) -> Any:
        """This rank's block without its halo."""

    def __setitem__(self, key: Any, values: Any) -> None: ...


#: What a checkpoint holds, by name.
Stored: TypeAlias = Mapping[str, Part]


class Source(Protocol):
    """The datasets of a checkpoint, by the names that `Member.stored` gives them.

    Each is compared with its digest when it is read. All methods but `shape` and `value` are collective; all raise
    CheckpointError, on all ranks, where the file is damaged.
    """

    def shape(self, name: str) -> tuple[int, ...]:
        """The global shape of an array."""

    def value(self, name: str) -> Any:
        """The value of a Scalar."""

    def read(self, name: str, layout: Layout) -> np.ndarray:
        """This rank's part of an array."""

    def fill(self, field: Block) -> None:
        """Put the array of a Field's name into its block, piece by piece."""


@runtime_checkable
class Member(Protocol):
    """What a State holds under a name: a Field, a Scalar, a Table, or an object of your own that does the same.

    Between `stored` and the end of the checkpoint the member may change: the arrays that it gave may not.
    """

    name: str

    @property
    def nbytes(self) -> int:
        """The bytes of this rank's memory that it takes."""

    def describe(self) -> str:
        """What is declared of it, which must be the same on all ranks."""

    def kinds(self) -> Mapping[str, str]:
        """The dtype of each of its datasets, by name, and the shape behind a space where that is declared, too."""

    def stored(self) -> Stored:
        """What a checkpoint of its present values holds, by name: its own, or its own with /PART. Collective."""

    def load(self, source: Source) -> None:
        """Take the values of a checkpoint, of any number of ranks. Collective."""

    def digest(self) -> int:
        """64 bits that tell its values, the same on all ranks and for any number of them. Collective."""


@dataclass
class Scalar:
    """A value that is the same on all ranks."""

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
        """Set the value; raises ValueError where the dtype cannot hold it."""
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
        """The digest of the value, 64 bits. Not collective."""
        return local_digest(np.array([self.value], self.dtype), (1,), (0,))


def digest_of(stored: Stored, digests: Mapping[str, int]) -> int:
    """One digest of all that is stored, from those of its parts."""
    return combine({name: (item.dtype.str, item.shape, digests[name]) for name, item in stored.items()})
