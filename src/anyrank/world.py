"""World: who takes part in a run, and how its ranks come to agree."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import mpi4py
import numpy as np

from anyrank import launcher
from anyrank.child import is_child, leave_launch
from anyrank.errors import AnyrankError, UsageError, of_all_ranks
from anyrank.observe.timers import Timers

# One thread at a time calls MPI here (checkpoint threads call none), which spares MPI its locks.
# It takes effect only if nobody has initialised MPI before us.
mpi4py.rc.thread_level = "serialized"
if is_child():  # of a rank, perhaps: it must not join the ranks' MPI
    leave_launch()

with warnings.catch_warnings():
    # mpi4py warns, on every rank, of launchers that `check_launch` refuses, on one.
    warnings.filterwarnings("ignore", message="suspicious MPI execution environment")
    from mpi4py import MPI  # initialises MPI, so it comes after the lines above

if TYPE_CHECKING:
    from anyrank.recorder import Recorder

T = TypeVar("T")
_OPERATIONS = {"sum": MPI.SUM, "min": MPI.MIN, "max": MPI.MAX}


class World:
    """A private clone of a communicator: ranks, nodes, and agreement between ranks.

    Making a World is collective over `comm` (COMM_WORLD where none is given). Messages on it never meet
    those of other libraries, because the clone has a context of its own. With `check`, collective calls on
    `comm`, and on MPI.COMM_WORLD where that is cloned, are compared between ranks by `recorder`, which is
    None without. `timers` tell what its ranks' time is spent on, `transfer` how halos of GPUs travel: `staged`
    through pinned memory of the host, or `direct`, by an MPI that was seen to take a GPU's memory.
    """

    def __init__(self, comm: MPI.Intracomm | None = None, check: bool = False):
        initialise()
        self.comm = (MPI.COMM_WORLD if comm is None else comm).Dup()
        self.recorder: Recorder | None = None
        if self.comm.allreduce(check, MPI.MAX):  # a rank alone that was asked to check would wait for the others' calls
            from anyrank.recorder import Recorder

            self.recorder = Recorder(self.comm, everywhere=comm is None)
            self.comm = self.recorder.comm
        self.rank: int = self.comm.rank
        self.size: int = self.comm.size
        self.timers = Timers()
        self.transfer = "staged"
        self._tags = 0

    def __repr__(self) -> str:
        return f"World(rank={self.rank}, size={self.size})"

    @cached_property
    def _node(self) -> MPI.Comm:
        return self.comm.Split_type(MPI.COMM_TYPE_SHARED)

    @property
    def node_rank(self) -> int:
        """This rank's number among the ranks of its node; the first use is collective."""
        return int(self._node.rank)

    @property
    def node_size(self) -> int:
        """How many ranks share this node; the first use is collective."""
        return int(self._node.size)

    def node_gather(self, value: T) -> list[T]:
        """The values of this node's ranks, in the order of `node_rank`, on all of them. Collective."""
        gathered: list[T] = self._node.allgather(value)
        return gathered

    def allreduce(self, array: np.ndarray, op: str = "sum") -> np.ndarray:
        """The element-wise `sum`, `min` or `max` over all ranks, on all ranks. Collective.

        Takes integers only from code that keeps the promise: a float sum depends on the ranks' order,
        so it is refused; `anyrank.exact` has the sum that does not.
        """
        array = np.asarray(array)
        if op == "sum" and array.dtype.kind not in "iu":
            raise TypeError(f"allreduce sums integers, not {array.dtype}: a float sum has an order; use exact.sum")
        result = np.empty_like(array, order="C")
        began = self.timers.start()
        self.comm.Allreduce(np.ascontiguousarray(array), result, _OPERATIONS[op])
        self.timers.stop("reduce", began)
        self.timers.count("reductions", "reduced", result.nbytes)
        return result

    def sum(self, count: int) -> int:
        """Add a count over all ranks. Collective.

        Parameters
        ----------
        count : int
            This rank's count, of at most 64 bits.

        Returns
        -------
        int
            The sum, the same on all ranks.
        """
        return int(self.allreduce(np.array([count], np.int64))[0])

    def all(self, condition: bool) -> bool:
        """Return whether a condition holds on all ranks. Collective.

        Parameters
        ----------
        condition : bool
            Whether it holds on this rank.

        Returns
        -------
        bool
            Whether it holds on every rank, the same on all ranks.
        """
        return bool(self.allreduce(np.array([bool(condition)], np.int32), "min")[0])

    def gather(self, value: T) -> list[T] | None:
        """The values of all ranks in rank order on rank 0, None elsewhere. Collective."""
        gathered: list[T] | None = self.comm.gather(value)
        return gathered

    def bcast(self, value: T) -> T:
        """Rank 0's value, on all ranks. Collective."""
        result: T = self.comm.bcast(value)
        return result

    def barrier(self) -> None:
        """Wait until all ranks are here. Collective."""
        self.comm.Barrier()

    def on_root(self, call: Callable[[], T]) -> T:
        """Call a function on rank 0 and return its value on all ranks. Collective.

        Parameters
        ----------
        call : callable
            A function without parameters that makes no collective call. Its value must be picklable.

        Returns
        -------
        object
            What `call` returned on rank 0.

        Raises
        ------
        AnyrankError
            On all ranks, where `call` raised any Exception: as `raise_on_all_ranks` does.
        """
        value: Any = None
        with self.raise_on_all_ranks(Exception):
            if self.rank == 0:
                value = call()
        return self.bcast(value)  # type: ignore[no-any-return]

    def raise_on_all_ranks(self, *kinds: type[Exception]) -> RaiseOnAllRanks:
        """Run the body of a `with` statement on each rank, and raise the error of any rank on all. Collective.

        The end of the body is a collective call. The body must make no collective call where it can fail on one
        rank alone. An error of another kind leaves on its own rank, and ends the run.

        Parameters
        ----------
        *kinds : type of Exception, optional
            The errors that are raised on all ranks; AnyrankError where none is given.

        Returns
        -------
        RaiseOnAllRanks
            The context manager.

        Raises
        ------
        AnyrankError
            On all ranks, the error of the lowest rank that has one: an AnyrankError as it is, any other error as
            an AnyrankError that names the rank.

        Examples
        --------
        >>> with world.raise_on_all_ranks(OSError):
        ...     data = path.read_bytes()
        """
        return RaiseOnAllRanks(self, kinds or (AnyrankError,))

    def tag(self) -> int:
        """A message tag that no other exchange of this World uses, if all ranks ask in the same order."""
        self._tags += 1
        return self._tags

    def abort(self, status: int) -> None:
        """End all ranks of the job at once with this exit status. Not collective, and does not return."""
        self.comm.Abort(status)

    def close(self) -> None:
        """Give the clone back. Collective."""
        if self.recorder is not None:
            self.recorder.close()
        if "_node" in self.__dict__:
            self._node.Free()
        self.comm.Free()


class RaiseOnAllRanks:
    """The context manager of `World.raise_on_all_ranks`.

    It is a class because --check shows the line that makes a call, and contextlib's generators stand between.
    """

    def __init__(self, world: World, kinds: tuple[type[Exception], ...]):
        self._world, self._kinds = world, kinds

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and (not isinstance(error, self._kinds) or getattr(error, "collective", False)):
            return  # what all ranks raise together needs no other call, which some of them may have made already
        world = self._world
        failing = -1 if error is None else world.size - world.rank
        worst = int(world.allreduce(np.array([failing], np.int64), "max")[0])
        if worst < 0:
            return
        root = world.size - worst
        agreed = world.comm.bcast(_portable(error, world.rank) if world.rank == root else None, root=root)
        raise of_all_ranks(agreed)


def _portable(error: BaseException | None, rank: int) -> AnyrankError:
    if isinstance(error, AnyrankError):
        return error
    return AnyrankError(f"rank {rank}: {type(error).__name__}: {error}")


def initialise() -> None:
    """Initialise MPI where nobody has; the command line puts that off until it is needed. Collective."""
    if not MPI.Is_initialized():
        MPI.Init_thread(MPI.THREAD_SERIALIZED)


def agree_to_begin(error: AnyrankError | None) -> None:
    """Raise on all ranks if any of them could not even begin. Collective over all that were launched together."""
    world = World()
    try:
        with world.raise_on_all_ranks():
            if error is not None:
                raise error
    finally:
        world.close()


def check_launch(world: World) -> None:
    """Refuse a launcher of another MPI: it would silently run N worlds of one rank each.

    Raises UsageError, with a message on the launcher's first task alone.
    """
    tasks = launcher.tasks()
    if tasks <= 1 or world.size > 1:
        return
    library = MPI.Get_library_version().split("\n")[0].strip("\0").strip()
    error = UsageError(
        f"the launcher started {tasks} tasks but this MPI sees a world of 1: the launcher and mpi4py "
        f"belong to different MPIs (mpi4py uses {library}). Use the mpiexec that belongs to it, or "
        f"`anyrank run … -n {tasks}`, which starts the right one."
    )
    error.silent = launcher.task() > 0
    raise error


def mpi_versions() -> dict[str, Any]:
    """The MPI in use: its library's first line, the standard's version, mpi4py's version."""
    return {
        "library": MPI.Get_library_version().split("\n")[0].strip("\0").strip(),
        "standard": ".".join(str(part) for part in MPI.Get_version()),
        "mpi4py": mpi4py.__version__,
    }
