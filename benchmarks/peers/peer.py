"""What a peer is: one way to do a job, in a file of its own."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

HERE = Path(__file__).parent
#: The peer that all others of a job are compared with.
OURS = "anyrank"


class Peer:
    """One way to do a job; its file is called JOB_ANYTHING.py and holds one subclass.

    It is made once, in a process of its own that lives through all rounds: what is compiled or started is not
    measured, nor is its first run. `size` is one of the job's, `cores` one of `self.cores`, `comm` the ranks'
    communicator (None unless `ranks`), `folder` an empty one of its own, the same on all ranks.
    """

    #: Who it is, in the table, and the packages whose versions matter.
    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ("numpy",)
    #: On how many cores it is compared; whether it uses several as MPI ranks.
    cores: ClassVar[tuple[int, ...]] = (1,)
    ranks: ClassVar[bool] = False
    #: How far its values may be off ours, of the largest of them; 0 asks for the same bits.
    tolerance: ClassVar[float] = 0.0
    #: Which share of the job a run does, where all of it would take minutes; see also `share_of`.
    share: ClassVar[float] = 1.0
    #: How many times faster than it ours should be, by cores (1 where nothing is said), and why where it is not.
    goals: ClassVar[dict[int, float]] = {}
    behind: ClassVar[str] = ""
    #: The virtual environment that it runs in, made by a script, where it is not that of all others.
    environment: ClassVar[tuple[str, str] | None] = None
    #: Variables of its process's environment, for what is read when Python starts or a package is imported.
    variables: ClassVar[dict[str, str]] = {}

    def __init__(self, size: dict[str, int], cores: int, comm: Any, folder: Path):
        self.size, self.count, self.comm, self.folder = size, cores, comm, folder
        #: What else the results should tell: settings that it chose, versions that are not packages'.
        self.details: dict[str, str] = {}

    @classmethod
    def share_of(cls, size: dict[str, int]) -> float:
        """Return which share of a job of this size a run does."""
        return cls.share

    def run(self) -> dict[str, float] | None:
        """Do the job, or go on with it, and be measured; or tell seconds of one's own. All ranks together."""
        raise NotImplementedError

    def answer(self) -> dict[str, np.ndarray]:
        """Return the answer of the first run, on rank 0 (those of other ranks are ignored). Collective."""
        raise NotImplementedError

    def tidy(self) -> None:
        """Clear up, before a run, what the one before it left; not measured. All ranks together."""

    def rest(self) -> None:
        """Free memory that others need, after a run; not measured. Collective."""


def load(name: str) -> type[Peer]:
    """Return the peer in the file of this name; raise ImportError if a package is missing."""
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
    module = importlib.import_module(name)
    (found,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Peer) and value.__module__ == name
    )
    return found
