"""The base class of peers: a peer is one way to do a job, in its own file."""

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
    """One way to do a job; its file is called JOB_ANYTHING.py and contains one subclass.

    A peer is created once, in its own process, which stays alive for all rounds. So start-up, compilation and the first
    run are not measured.

    Parameters
    ----------
    size
        One of the sizes of the job.
    cores
        One of the values in `self.cores`.
    comm
        The communicator of the ranks; None unless `ranks` is set.
    folder
        An empty folder of this peer, the same on all ranks.
    """

    #: Its name in the table, and the packages whose versions the results list.
    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ("numpy",)
    #: The numbers of cores to compare it on; whether it uses several cores as MPI ranks.
    cores: ClassVar[tuple[int, ...]] = (1,)
    ranks: ClassVar[bool] = False
    #: The largest difference from anyrank's values, relative to the largest value; 0 means the same bits.
    tolerance: ClassVar[float] = 0.0
    #: The fraction of the job that a run does, if the whole job would take minutes; see also `share_of`.
    share: ClassVar[float] = 1.0
    #: The speed of anyrank relative to this peer that is the goal, by cores (default 1), and why it is not reached.
    goals: ClassVar[dict[int, float]] = {}
    behind: ClassVar[str] = ""
    #: Its own virtual environment and the script that makes it, if it cannot run in the common one.
    environment: ClassVar[tuple[str, str] | None] = None
    #: Environment variables of its process.
    variables: ClassVar[dict[str, str]] = {}

    def __init__(self, size: dict[str, int], cores: int, comm: Any, folder: Path):
        self.size, self.count, self.comm, self.folder = size, cores, comm, folder
        #: More details for the results, such as settings, or versions of other software than packages.
        self.details: dict[str, str] = {}

    @classmethod
    def share_of(cls, size: dict[str, int]) -> float:
        """Return the fraction of a job of this size that a run does."""
        return cls.share

    def run(self) -> dict[str, float] | None:
        """Do the job, or continue it; this is timed, unless it returns its own seconds. Collective."""
        raise NotImplementedError

    def answer(self) -> dict[str, np.ndarray]:
        """Return the result of the first run, on rank 0; other ranks may return anything. Collective."""
        raise NotImplementedError

    def clean_up(self) -> None:
        """Remove, before a run, the files of the previous run; this is not measured. Collective."""

    def release_memory(self) -> None:
        """Free, after a run, memory that others need; this is not measured. Collective."""


def load(name: str) -> type[Peer]:
    """Return the peer class in the file of this name; raises ImportError if a package is missing."""
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
    module = importlib.import_module(name)
    (found,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Peer) and value.__module__ == name
    )
    return found
