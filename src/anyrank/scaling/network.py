"""The network as a program meets it: what messages and all-reduces cost, within a node and between nodes.

The parameters are those of LogGP (Alexandrov, Ionescu, Schauser, Scheiman, J. Parallel Distrib. Comput. 44, 1997,
71-79): a message of n bytes is there o + L + (n − 1) G + o seconds after its sender began; o is what a processor spends
on sending or receiving it, L the latency, g the gap between small messages in a row, G the time per byte.
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

#: Bytes of messages, and of what is reduced; G is that of messages at least LONG.
SIZES, REDUCED, LONG = (8, 256, 2048, 8192, 32768, 131072, 524288, 4194304), (8, 64, 1024), 131072
#: Seconds and repeats that one thing may take; small messages and all-reduces in a row; pairs for a kind of link.
PATIENCE, LEAST, MOST, ROW, FEW, PAIRS = 0.15, 5, 200, 16, 4, 3
#: A link of two ranks of one node, and one of ranks on two.
NODE, NETWORK = "node", "network"


class Spread(NamedTuple):
    """The median of what was found, and its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """That of some values; negative ones, which only noise makes, count as 0."""
        low, median, high = np.percentile(np.maximum(values, 0), [25, 50, 75])
        return cls(float(median), float(low), float(high))


@dataclass(frozen=True)
class Link:
    """A kind of link: LogGP's parameters in seconds, and half a round trip by the bytes of its messages."""

    L: Spread
    o: Spread
    g: Spread
    G: Spread
    halves: tuple[tuple[int, Spread], ...] = ()

    def seconds(self, size: float, which: int = 0) -> float:
        """How long a message takes: the `which`-th of its Spread, between measured sizes interpolated."""
        if not self.halves:
            return 2 * self.o[which] + self.L[which] + self.G[which] * max(size - 1, 0)
        sizes, times = [n for n, _ in self.halves], [half[which] for _, half in self.halves]
        return float(np.interp(size, sizes, times)) + self.G[which] * max(size - sizes[-1], 0)


@dataclass(frozen=True)
class Reduction:
    """The seconds of an all-reduce of some bytes, over ranks of one node or over one rank of each of several."""

    kind: str
    ranks: int
    bytes: int
    seconds: Spread


@dataclass(frozen=True)
class Network:
    """What was measured, by the kind of link; `about` tells where."""

    links: dict[str, Link]
    reductions: tuple[Reduction, ...]
    about: dict[str, Any]

    def round(self, kind: str, size: float, which: int = 0) -> float:
        """The seconds of a round of an all-reduce of some bytes: as measured, or else those of a message."""
        found: dict[int, list[float]] = {}
        for one in self.reductions:
            if one.kind == kind:
                found.setdefault(one.bytes, []).append(one.seconds[which] / rounds(one.ranks))
        if not found:
            return self.links[kind].seconds(size, which)
        sizes, times = sorted(found), [float(np.median(found[n])) for n in sorted(found)]
        return float(np.interp(size, sizes, times)) + self.links[kind].G[which] * max(size - sizes[-1], 0)

    def write(self, path: Path) -> None:
        """Write it as JSON, which `read` reads."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Network:
        """What a file holds. In one that people write a link needs no more than L, o, g and G, a number each.

        Raises UsageError where it is none.
        """
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            links = {kind: _link(values) for kind, values in told["links"].items()}
            rows = [Reduction(**{**one, "seconds": _spread(one["seconds"])}) for one in told.get("reductions", ())]
            return cls(links, tuple(rows), told.get("about", {}))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            fix = f"Write one with: anyrank doctor --network --out {path}"
            raise UsageError(f"{path} holds no measured network ({type(error).__name__}: {error}). {fix}") from None


def _spread(value: Any) -> Spread:
    return Spread(*map(float, value if isinstance(value, list) else [value] * 3))


def _link(values: dict[str, Any]) -> Link:
    halves = tuple((int(size), _spread(half)) for size, half in values.get("halves", ()))
    return Link(_spread(values["L"]), _spread(values["o"]), _spread(values["g"]), _spread(values["G"]), halves)


def rounds(ranks: int) -> int:
    """Messages one after the other in an all-reduce by recursive doubling (Thakur, Rabenseifner, Gropp, Int. J. High
    Perform. Comput. Appl. 19, 2005, 49-66): ⌈log₂⌉, where all-reduces follow each other.
    """
    return (ranks - 1).bit_length()


def measure(out: Path | None, ranks: int, hosts: str = "", *words: str) -> int:
    """Start ranks that measure the network, print it, and write it to `out`; the exit code, 0 where they did."""
    from anyrank.runtime.launch import Launch
    from anyrank.runtime.supervisor import parse_hosts

    command = ["doctor", "--network", *words, *(["--out", str(out)] if out is not None else [])]
    with Launch(Path(os.devnull)) as launch:
        status = launch.run(ranks, rank_command(command), parse_hosts(hosts, ranks))
    return status if status in (0, UsageError.status) else 1


def measured(world: World) -> Network:
    """What the links and all-reduces between the ranks of a world take; the same on all. Collective, for seconds."""
    homes = world.comm.allgather(world.node_gather(world.rank)[0])
    nodes = [[rank for rank, home in enumerate(homes) if home == node] for node in sorted(set(homes))]
    mine = []
    for kind, ranks, what in _tasks(nodes):
        comm = world.comm.Split(int(world.rank in ranks), world.rank)
        if world.rank in ranks:
            mine.append((kind, comm.rank, what(comm)))
        request = world.comm.Ibarrier()
        while not request.Test():
            time.sleep(0.001)  # those that take no part leave their cores to those that do
        comm.Free()
    found = [(kind, one) for theirs in world.comm.allgather(mine) for kind, rank, one in theirs if rank == 0]
    pairs = {kind: [one for at, one in found if at == kind and isinstance(one, dict)] for kind in (NODE, NETWORK)}
    reductions = [Reduction(kind, *one) for kind, one in found if isinstance(one, tuple)]
    about = {"ranks": world.size, "nodes": len(nodes), "host": os.uname().nodename, "mpi": mpi_versions()["library"]}
    return Network({kind: _fit(some) for kind, some in pairs.items() if some}, tuple(reductions), about)


def _tasks(nodes: list[list[int]]) -> Iterator[tuple[str, list[int], Callable[[Any], Any]]]:
    """What to measure: the kind of link, the ranks, and a function of their communicator."""
    largest, leaders = max(nodes, key=len), [ranks[0] for ranks in nodes]
    yield from ((NODE, ranks[:2], _pair) for ranks in [ranks for ranks in nodes if len(ranks) > 1][:PAIRS])
    yield from ((NETWORK, [leaders[0], other], _pair) for other in leaders[1 : 1 + PAIRS])
    for kind, ranks in ((NODE, largest), (NETWORK, leaders)):
        for count in sorted({*(1 << k for k in range(1, len(ranks).bit_length())), len(ranks)} - {1}):
            yield from ((kind, ranks[:count], partial(_reduce, size)) for size in REDUCED)


def _repeated(comm: Any, action: Callable[[], Any]) -> list[Any]:
    """What an action of all ranks returns, as often as time allows, after two that warm up and do not count."""
    times = []
    for _ in range(2):
        before = time.perf_counter()
        action()
        times.append(time.perf_counter() - before)
    count = comm.bcast(int(min(max(PATIENCE / times[-1], LEAST), MOST)))
    return [action() for _ in range(count)]


def _reduce(size: int, comm: Any) -> tuple[int, int, Spread]:
    """Ranks, bytes, and seconds: the mean of a few, as ranks that wait for each other may take two in turn."""
    mine, theirs = np.ones(size // 8, np.int64), np.empty(size // 8, np.int64)

    def once() -> float:
        before = time.perf_counter()
        for _ in range(FEW):
            comm.Allreduce(mine, theirs)
        return (time.perf_counter() - before) / FEW

    return comm.size, size, Spread.of(_repeated(comm, once))


def _pair(comm: Any) -> dict[str, Any]:
    """What the first rank found: half round trips by size, and of small messages in a row what `_row` returns."""
    halves = {size: _repeated(comm, partial(_trip, comm, np.zeros(size, np.uint8))) for size in SIZES}
    trip = float(np.median(halves[SIZES[0]]))
    gaps = [(total - 2 * trip) / (ROW - 1) for *_, total in _repeated(comm, lambda: _row(comm, 0.0))]
    overheads = [(sent + got) / 2 for sent, got, _ in _repeated(comm, lambda: _row(comm, 4 * trip + 1e-4))]
    return {"halves": halves, "g": gaps, "o": overheads}


def _trip(comm: Any, buffer: np.ndarray) -> float:
    before = time.perf_counter()
    for sender in (0, 1):
        comm.Send(buffer, 1 - sender) if comm.rank == sender else comm.Recv(buffer, sender)
    return (time.perf_counter() - before) / 2


def _row(comm: Any, away: float) -> tuple[float, float, float]:
    """What small messages in a row take: sending one, receiving one, and all until they are answered.

    The receiver is `away` first: when it comes back they are there, and receiving is its own work alone.
    """
    buffers, answer = np.zeros((ROW, 8), np.uint8), np.zeros(1)
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
    return sent / ROW, float(answer[0]) / ROW, time.perf_counter() - before


def _fit(pairs: list[dict[str, Any]]) -> Link:
    """LogGP's parameters from what some pairs found."""
    halves = [(size, Spread.of([t for pair in pairs for t in pair["halves"][size]])) for size in SIZES]
    o, g = (Spread.of([t for pair in pairs for t in pair[name]]) for name in "og")
    (short, near), (long, far) = next(one for one in halves if one[0] >= LONG), halves[-1]
    G = [max((b - a) / (long - short), 0) for a, b in zip(near, far, strict=True)]
    return Link(Spread(*(max(t - 2 * o.median, 0) for t in halves[0][1])), o, g, Spread(*G), tuple(halves))


def table(network: Network) -> str:
    """What was measured, for people."""
    lines = [", ".join(f"{name} {value}" for name, value in network.about.items()), "medians (quartiles) in µs", ""]
    lines.append(f"{'link':<10} {'L':>24} {'o':>24} {'g':>24} {'1/G, GB/s':>10}")
    for kind, link in network.links.items():
        cells = " ".join(f"{_micro(one):>24}" for one in (link.L, link.o, link.g))
        lines.append(f"{kind:<10} {cells} {1e-9 / max(link.G.median, 1e-15):>10.3g}")
    lines += ["", f"{'all-reduce':<10} {'ranks':>6} {'bytes':>6} {'time':>30}"]
    lines += [f"{one.kind:<10} {one.ranks:>6} {one.bytes:>6} {_micro(one.seconds):>30}" for one in network.reductions]
    return "\n".join(lines)


def _micro(spread: Spread) -> str:
    median, low, high = (f"{1e6 * value:.2f}" for value in spread)
    return f"{median} ({low} to {high})"
