"""The network as MPI programs use it: the time of messages and all-reduces, within a node and between nodes.

The parameters are those of LogGP (Alexandrov, Ionescu, Schauser, Scheiman, J. Parallel Distrib. Comput. 44, 1997,
71-79): a message of n bytes arrives o + L + (n − 1) G + o seconds after the start of the send; o is the overhead of a
processor for sending or receiving, L the latency, g the gap between consecutive small messages, G the time per byte.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anyrank.errors import UsageError
from anyrank.launcher import rank_command
from anyrank.world import World, mpi_versions

#: Bytes of messages and of reductions; G comes from messages of at least LONG bytes.
SIZES, REDUCED, LONG = (8, 256, 2048, 8192, 32768, 131072, 524288, 4194304), (8, 64, 1024), 131072
#: Time limit in seconds and bounds of the repeats of a measurement; consecutive small messages and all-reduces; pairs
#: of ranks for a kind of link.
TIME_LIMIT, MIN_REPEATS, MAX_REPEATS, MESSAGES, REDUCTIONS, PAIRS = 0.15, 5, 200, 16, 4, 3
#: The kinds of links: between ranks of one node, and between nodes.
NODE, NETWORK = "node", "network"


class Spread(NamedTuple):
    """The median and the quartiles of measured values."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of values; negative values, which only noise causes, count as 0."""
        low, median, high = np.percentile(np.maximum(values, 0), [25, 50, 75])
        return cls(float(median), float(low), float(high))


@dataclass(frozen=True)
class Link:
    """A kind of link: LogGP's parameters in seconds, and half round trips by message size in bytes."""

    L: Spread
    o: Spread
    g: Spread
    G: Spread
    halves: tuple[tuple[int, Spread], ...] = ()

    def seconds(self, size: float, which: int = 0) -> float:
        """Return the seconds of a message, interpolated from measured sizes; `which` selects an element of Spread."""
        if not self.halves:
            return 2 * self.o[which] + self.L[which] + self.G[which] * max(size - 1, 0)
        sizes, times = [n for n, _ in self.halves], [half[which] for _, half in self.halves]
        return float(np.interp(size, sizes, times)) + self.G[which] * max(size - sizes[-1], 0)


@dataclass(frozen=True)
class Reduction:
    """The seconds of an all-reduce of `bytes` bytes, over ranks of one node or over one rank of each node."""

    kind: str
    ranks: int
    bytes: int
    seconds: Spread


@dataclass(frozen=True)
class Network:
    """The measured network by the kind of link; `about` describes the machine."""

    links: dict[str, Link]
    reductions: tuple[Reduction, ...]
    about: dict[str, Any]

    def round(self, kind: str, size: float, which: int = 0) -> float:
        """Return the seconds of one round of an all-reduce, from measured ones, or else the time of a message."""
        by_size: dict[int, list[float]] = {}
        for reduction in self.reductions:
            if reduction.kind == kind:
                by_size.setdefault(reduction.bytes, []).append(
                    reduction.seconds[which] / message_rounds(reduction.ranks)
                )
        if not by_size:
            return self.links[kind].seconds(size, which)
        sizes, times = sorted(by_size), [float(np.median(by_size[n])) for n in sorted(by_size)]
        return float(np.interp(size, sizes, times)) + self.links[kind].G[which] * max(size - sizes[-1], 0)

    def write(self, path: Path) -> None:
        """Write a JSON file that `read` reads."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Network:
        """Read a network from a file. In a file written by hand, a link needs only one number each for L, o, g, G.

        Raises UsageError if the file does not hold a network.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            links = {kind: _link(values) for kind, values in content["links"].items()}
            entries = content.get("reductions", ())
            reductions = [Reduction(**{**entry, "seconds": _spread(entry["seconds"])}) for entry in entries]
            return cls(links, tuple(reductions), content.get("about", {}))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            fix = f"Write one with: anyrank doctor --network --out {path}"
            raise UsageError(f"{path} holds no measured network ({type(error).__name__}: {error}). {fix}") from None


def _spread(value: Any) -> Spread:
    return Spread(*map(float, value if isinstance(value, list) else [value] * 3))


def _link(values: dict[str, Any]) -> Link:
    halves = tuple((int(size), _spread(half)) for size, half in values.get("halves", ()))
    return Link(_spread(values["L"]), _spread(values["o"]), _spread(values["g"]), _spread(values["G"]), halves)


def message_rounds(ranks: int) -> int:
    """Return the number of consecutive messages in an all-reduce by recursive doubling: ⌈log₂ ranks⌉.

    This holds if all-reduces follow each other: Thakur, Rabenseifner, Gropp, Int. J. High Perform. Comput. Appl. 19,
    2005, 49-66.
    """
    return (ranks - 1).bit_length()


def measure(out: Path | None, ranks: int, hosts: str = "", *words: str) -> int:
    """Start ranks that measure the network, print it, and write it to `out`; return the exit code."""
    from anyrank.runtime.launch import Launch
    from anyrank.runtime.supervisor import parse_hosts

    command = ["doctor", "--network", *words, *(["--out", str(out)] if out is not None else [])]
    with Launch(Path(os.devnull)) as launch:
        status = launch.run(ranks, rank_command(command), parse_hosts(hosts, ranks))
    return status if status in (0, UsageError.status) else 1


def measure_here(world: World) -> Network:
    """Measure the links and all-reduces between the ranks of a world. Collective; it takes seconds.

    All ranks return the same Network.
    """
    first_ranks = world.comm.allgather(world.node_gather(world.rank)[0])
    nodes = [[rank for rank, home in enumerate(first_ranks) if home == node] for node in sorted(set(first_ranks))]
    results_here = []
    for kind, ranks, what in _tasks(nodes):
        comm = world.comm.Split(int(world.rank in ranks), world.rank)
        if world.rank in ranks:
            results_here.append((kind, comm.rank, what(comm)))
        request = world.comm.Ibarrier()
        while not request.Test():
            time.sleep(0.001)  # idle ranks leave their cores to the ranks that measure
        comm.Free()
    gathered = world.comm.allgather(results_here)
    results = [(kind, result) for of_rank in gathered for kind, rank, result in of_rank if rank == 0]
    pairs = {kind: [pair for at, pair in results if at == kind and isinstance(pair, dict)] for kind in (NODE, NETWORK)}
    reductions = [Reduction(kind, *result) for kind, result in results if isinstance(result, tuple)]
    about = {"ranks": world.size, "nodes": len(nodes), "host": os.uname().nodename, "mpi": mpi_versions()["library"]}
    return Network({kind: _fit(some) for kind, some in pairs.items() if some}, tuple(reductions), about)


def _tasks(nodes: list[list[int]]) -> Iterator[tuple[str, list[int], Callable[[Any], Any]]]:
    """Yield the measurements: the kind of link, the ranks, and a function of their communicator."""
    largest, leaders = max(nodes, key=len), [ranks[0] for ranks in nodes]
    yield from ((NODE, ranks[:2], _pair) for ranks in [ranks for ranks in nodes if len(ranks) > 1][:PAIRS])
    yield from ((NETWORK, [leaders[0], other], _pair) for other in leaders[1 : 1 + PAIRS])
    for kind, ranks in ((NODE, largest), (NETWORK, leaders)):
        for count in sorted({*(1 << k for k in range(1, len(ranks).bit_length())), len(ranks)} - {1}):
            yield from ((kind, ranks[:count], partial(_reduce, size)) for size in REDUCED)


def _repeated(comm: Any, action: Callable[[], Any]) -> list[Any]:
    """Return the values of a collective action, repeated as often as time allows, after two warm-up calls."""
    times = []
    for _ in range(2):
        before = time.perf_counter()
        action()
        times.append(time.perf_counter() - before)
    count = comm.bcast(int(min(max(TIME_LIMIT / times[-1], MIN_REPEATS), MAX_REPEATS)))
    return [action() for _ in range(count)]


def _reduce(size: int, comm: Any) -> tuple[int, int, Spread]:
    """Return ranks, bytes and seconds of an all-reduce: the mean of a few, because single ones may alternate."""
    results_here, reduced = np.ones(size // 8, np.int64), np.empty(size // 8, np.int64)

    def once() -> float:
        before = time.perf_counter()
        for _ in range(REDUCTIONS):
            comm.Allreduce(results_here, reduced)
        return (time.perf_counter() - before) / REDUCTIONS

    return comm.size, size, Spread.of(_repeated(comm, once))


def _pair(comm: Any) -> dict[str, Any]:
    """Measure a pair of ranks: half round trips by size, gaps and overheads; valid on its first rank."""
    halves = {size: _repeated(comm, partial(_half_round_trip, comm, np.zeros(size, np.uint8))) for size in SIZES}
    trip = float(np.median(halves[SIZES[0]]))
    gaps = [(total - 2 * trip) / (MESSAGES - 1) for *_, total in _repeated(comm, lambda: _consecutive(comm, 0.0))]
    overheads = [(sent + got) / 2 for sent, got, _ in _repeated(comm, lambda: _consecutive(comm, 4 * trip + 1e-4))]
    return {"halves": halves, "g": gaps, "o": overheads}


def _half_round_trip(comm: Any, buffer: np.ndarray) -> float:
    before = time.perf_counter()
    for sender in (0, 1):
        comm.Send(buffer, 1 - sender) if comm.rank == sender else comm.Recv(buffer, sender)
    return (time.perf_counter() - before) / 2


def _consecutive(comm: Any, away: float) -> tuple[float, float, float]:
    """Return the seconds for consecutive small messages: to send one, to receive one, and for all until the answer.

    The receiver first sleeps for `away` seconds. Then all messages have arrived, and a receive is only local work.
    """
    buffers, answer = np.zeros((MESSAGES, 8), np.uint8), np.zeros(1)
    comm.Barrier()
    before = time.perf_counter()
    if comm.rank:
        time.sleep(away)
        before = time.perf_counter()
        for buffer in buffers:
            comm.Recv(buffer, 0)
        comm.Send(np.array([time.perf_counter() - before]), 0)
        return 0.0, 0.0, 0.0
    requests = [comm.Isend(buffer, 1) for buffer in buffers]
    sent = time.perf_counter() - before
    for request in requests:
        request.Wait()
    comm.Recv(answer, 1)
    return sent / MESSAGES, float(answer[0]) / MESSAGES, time.perf_counter() - before


def _fit(pairs: list[dict[str, Any]]) -> Link:
    """Compute LogGP's parameters from the measurements of some pairs."""
    halves = [(size, Spread.of([t for pair in pairs for t in pair["halves"][size]])) for size in SIZES]
    o, g = (Spread.of([t for pair in pairs for t in pair[name]]) for name in "og")
    (short, near), (long, far) = next(half for half in halves if half[0] >= LONG), halves[-1]
    G = [max((b - a) / (long - short), 0) for a, b in zip(near, far, strict=True)]
    return Link(Spread(*(max(t - 2 * o.median, 0) for t in halves[0][1])), o, g, Spread(*G), tuple(halves))


def as_text(network: Network) -> str:
    """Format the measured network as a table."""
    lines = [", ".join(f"{name} {value}" for name, value in network.about.items()), "medians (quartiles) in µs", ""]
    lines.append(f"{'link':<10} {'L':>24} {'o':>24} {'g':>24} {'1/G, GB/s':>10}")
    for kind, link in network.links.items():
        cells = " ".join(f"{_micro(spread):>24}" for spread in (link.L, link.o, link.g))
        lines.append(f"{kind:<10} {cells} {1e-9 / max(link.G.median, 1e-15):>10.3g}")
    lines += ["", f"{'all-reduce':<10} {'ranks':>6} {'bytes':>6} {'time':>30}"]
    lines += [f"{it.kind:<10} {it.ranks:>6} {it.bytes:>6} {_micro(it.seconds):>30}" for it in network.reductions]
    return "\n".join(lines)


def _micro(spread: Spread) -> str:
    median, low, high = (f"{1e6 * value:.2f}" for value in spread)
    return f"{median} ({low} to {high})"
