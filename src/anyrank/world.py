"""World: the communicator of a run, and agreement between its ranks."""

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

# Only one thread at a time calls MPI (the threads of checkpoints do not), so that MPI needs no locks.
# This has an effect only if MPI is not initialized yet.
mpi4py.rc.thread_level = "serialized"
if is_child():  # a child process of a rank must not join the MPI job of the ranks
    leave_launch()

with warnings.catch_warnings():
    # mpi4py warns on every rank about launchers that `check_launch` refuses on one rank.
    warnings.filterwarnings("ignore", message="suspicious MPI execution environment")
    from mpi4py import MPI  # initializes MPI, and therefore follows the lines above

if TYPE_CHECKING:
    from anyrank.recorder import Recorder

T = TypeVar("T")
_OPERATIONS = {"sum": MPI.SUM, "min": MPI.MIN, "max": MPI.MAX}


class World:
    """A private clone of a communicator: ranks, nodes, and agreement between ranks.

    The constructor is collective over `comm`. The clone has its own context, so that its messages cannot be confused
    with those of other libraries.

    Parameters
    ----------
    comm : MPI.Intracomm, optional
        The communicator to clone; COMM_WORLD if none is given.
    check : bool
        Whether `recorder` compares the collective calls on `comm` between ranks, and those on MPI.COMM_WORLD if that
        is cloned. One rank is enough to switch it on.

    Attributes
    ----------
    comm : MPI.Intracomm
        The clone.
    rank, size : int
        This rank, and the number of ranks.
    recorder : Recorder or None
        Compares collective calls; None without `check`.
    timers : Timers
        The time of each activity of this rank.
    transfer : {"staged", "direct"}
        How the halos of GPUs are sent: through pinned memory of the host, or from GPU memory by a GPU-aware MPI.

    Examples
    --------
    >>> world = World()
    >>> world.sum(3) == 3 * world.size
    True
    """

    def __init__(self, comm: MPI.Intracomm | None = None, check: bool = False):
        initialize()
        self.comm = (MPI.COMM_WORLD if comm is None else comm).Dup()
        self.recorder: Recorder | None = None
        if self.comm.allreduce(check, MPI.MAX):  # all ranks check or none, because the comparison is collective
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
        """The number of this rank among the ranks of its node. The first use is collective."""
        return int(self._node.rank)

    @property
    def node_size(self) -> int:
        """The number of ranks on this node. The first use is collective."""
        return int(self._node.size)

    def node_gather(self, value: T) -> list[T]:
        """Return the values of the ranks of this node, in the order of `node_rank`, on all of them. Collective.

        Parameters
        ----------
        value : object
            The value of this rank, which must be picklable.
        """
        gathered: list[T] = self._node.allgather(value)
        return gathered

    def allreduce(self, array: np.ndarray, op: str = "sum") -> np.ndarray:
        """Return the element-wise sum, minimum or maximum over all ranks, on all ranks. Collective.

        Parameters
        ----------
        array : array_like
            Numbers, of the same shape and dtype on all ranks.
        op : {"sum", "min", "max"}
            The reduction.

        Raises
        ------
        TypeError
            For a sum of floats, because it depends on the order of the ranks; use `anyrank.exact`.
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
        """Return the sum of a count over all ranks, on all ranks. Collective.

        Parameters
        ----------
        count : int
            This rank's count, of at most 64 bits.
        """
        return int(self.allreduce(np.array([count], np.int64))[0])

    def all(self, condition: bool) -> bool:
        """Return whether a condition holds on all ranks. Collective.

        Parameters
        ----------
        condition : bool
            Whether it holds on this rank.
        """
        return bool(self.allreduce(np.array([bool(condition)], np.int32), "min")[0])

    def gather(self, value: T) -> list[T] | None:
        """Return the values of all ranks in the order of the ranks on rank 0, None on other ranks. Collective.

        Parameters
        ----------
        value : object
            The value of this rank, which must be picklable.
        """
        gathered: list[T] | None = self.comm.gather(value)
        return gathered

    def bcast(self, value: T) -> T:
        """Return the value of rank 0 on all ranks. Collective.

        Parameters
        ----------
        value : object
            The value of this rank; that of rank 0 must be picklable.
        """
        result: T = self.comm.bcast(value)
        return result

    def barrier(self) -> None:
        """Wait until all ranks call this method. Collective."""
        self.comm.Barrier()

    def on_root(self, call: Callable[[], T]) -> T:
        """Return the result of a function that is called on rank 0, on all ranks. Collective.

        Parameters
        ----------
        call : callable
            A function without parameters that makes no collective call. Its result must be picklable.

        Raises
        ------
        AnyrankError
            On all ranks, if `call` raises any Exception: see `raise_on_all_ranks`.
        """
        value: Any = None
        with self.raise_on_all_ranks(Exception):
            if self.rank == 0:
                value = call()
        return self.bcast(value)  # type: ignore[no-any-return]

    def raise_on_all_ranks(self, *kinds: type[Exception]) -> RaiseOnAllRanks:
        """Return a context manager that raises an error of its body on any rank on all ranks. Collective.

        The end of the body is a collective call. If the body can fail on one rank only, it must not make a collective
        call. An error of another type is raised on its own rank only, and ends the run.

        Parameters
        ----------
        *kinds : type of Exception, optional
            The types of errors to raise on all ranks; AnyrankError if none is given.

        Raises
        ------
        AnyrankError
            On all ranks, the error of the lowest rank that has one: an AnyrankError unchanged, any other error as an
            AnyrankError that names the rank.

        Examples
        --------
        >>> with World().raise_on_all_ranks(OSError):
        ...     text = np.fromfile("/dev/null")
        """
        return RaiseOnAllRanks(self, kinds or (AnyrankError,))

    def tag(self) -> int:
        """Return an unused message tag of this World; all ranks must make these calls in the same order."""
        self._tags += 1
        return self._tags

    def abort(self, status: int) -> None:
        """End all ranks of the job at once. Not collective; it does not return.

        Parameters
        ----------
        status : int
            The exit status of the job.
        """
        self.comm.Abort(status)

    def close(self) -> None:
        """Free the communicators. Collective."""
        if self.recorder is not None:
            self.recorder.close()
        if "_node" in self.__dict__:
            self._node.Free()
        self.comm.Free()


class RaiseOnAllRanks:
    """The context manager of `World.raise_on_all_ranks`.

    It is a class, because --check shows the calling line, and a generator of contextlib would add frames to the stack.
    """

    def __init__(self, world: World, kinds: tuple[type[Exception], ...]):
        self._world, self._kinds = world, kinds

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and (not isinstance(error, self._kinds) or getattr(error, "collective", False)):
            return  # all ranks raise a collective error, so that no agreement is needed
        world = self._world
        own = -1 if error is None else world.size - world.rank  # the lowest failing rank has the largest value
        largest = int(world.allreduce(np.array([own], np.int64), "max")[0])
        if largest < 0:
            return
        root = world.size - largest
        first_error = world.comm.bcast(_portable(error, world.rank) if world.rank == root else None, root=root)
        raise of_all_ranks(first_error)


def _portable(error: BaseException | None, rank: int) -> AnyrankError:
    if isinstance(error, AnyrankError):
        return error
    return AnyrankError(f"rank {rank}: {type(error).__name__}: {error}")


def initialize() -> None:
    """Initialize MPI unless it is; the command line delays this until it needs MPI. Collective."""
    if not MPI.Is_initialized():
        MPI.Init_thread(MPI.THREAD_SERIALIZED)


def agree_to_begin(error: Exception | None) -> None:
    """Raise the error of any rank that cannot begin on all ranks. Collective over all ranks of the launch."""
    world = World()
    try:
        with world.raise_on_all_ranks(Exception):
            if error is not None:
                raise error
    finally:
        world.close()


def check_launch(world: World) -> None:
    """Raise UsageError if the launcher belongs to another MPI, which would run N worlds of one rank each.

    Only the first task of the launcher prints the message.
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
    """Return the first line of the MPI library's version, and the versions of the MPI standard and of mpi4py."""
    return {
        "library": MPI.Get_library_version().split("\n")[0].strip("\0").strip(),
        "standard": ".".join(str(part) for part in MPI.Get_version()),
        "mpi4py": mpi4py.__version__,
    }
