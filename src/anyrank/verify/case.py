"""Cases: ways to run one program that must not matter to its state."""

from __future__ import annotations

from dataclasses import dataclass

#: What may differ between two cases, most telling first, and what it means where the results differ, too.
CAUSES = {
    "again": "The very same case was run twice. Look for chance that cannot be pinned: the system's entropy, "
    "datetime.now, the id of an object, a race between ranks. No other difference tells anything until it is gone.",
    "memory": "Fresh memory held other bytes: something is read before it was written, such as an element of np.empty.",
    "clock": "The clock was another: the state depends on time.time, perf_counter, MPI.Wtime or their kin.",
    "chance": "Random numbers that nobody seeds were others: take them from state.random, by global index.",
    "file order": "Files were listed in another order; os.listdir, glob and their kin promise none: sort the names.",
    "hash seed": "Python's hash seed was another: the state depends on the order of a set, or on hash() of text.",
    "timing": "The ranks came late in turn. A race: the state depends on who is first, as with MPI.ANY_SOURCE.",
    "parts": "The kernel depends on how the block is cut into regions. advance calls it on the interior and on the "
    "borders of a block separately, on large blocks always: each point must be computed from the kernel's arguments "
    "alone. The rank's own indices, and arrays of the block's shape, fit the whole block only: declare a Field that "
    "holds them, fill it in setup, and pass that Field to advance.",
    "body": "The bodies of a kernel give different bits; the reference body is its definition.",
    "restart": "What a program keeps outside its State, on self or in a module, is lost at resume: declare it.",
    "split": "The state depends on which axes are cut: look at corners of the halo, or an axis taken for another.",
    "ranks": "The state depends on the ranks: look for random numbers keyed by rank, a float sum over ranks "
    "(use exact.sum), ghosts that nobody exchanged, and a local index where the global one is meant.",
}
#: The environment variable that names what a case changes.
VARIABLE = "ANYRANK_VERIFY"
#: The causes that stand in the environment of a run: a case may change one of them.
PERTURBATIONS = ("memory", "clock", "chance", "file order", "hash seed")


@dataclass(frozen=True)
class Case:
    """A way to run the program: ranks of each of its runs, with the steps at which it stops in between.

    `changed` names one thing of the environment that is not as in the reference: a cause, or nothing.
    """

    ranks: tuple[int, ...] = (1,)
    stops: tuple[int, ...] = ()
    body: str = "auto"
    split: str = "auto"
    changed: str = ""

    @property
    def count(self) -> str:
        """The ranks, as a table shows them."""
        return "→".join(map(str, self.ranks))

    @property
    def regions(self) -> str:
        """What `advance` calls a kernel on."""
        return "small regions of a block" if self.changed == "parts" else "the whole block"

    @property
    def what(self) -> str:
        """What is special about the case."""
        stops = f"stopped at step {', '.join(map(str, self.stops))}" if self.stops else ""
        changed = self.changed if self.changed in ("", "again") else f"other {self.changed}"
        return " and ".join(part for part in (stops, changed) if part) or "straight"

    def __str__(self) -> str:
        ranks = f"{self.count} rank{'s' * (self.ranks != (1,))}"
        return f"{ranks}, split {self.split}, body {self.body}, {self.what}"


REFERENCE = Case(body="reference")


def causes(one: Case, other: Case) -> list[str]:
    """What differs between two cases, in the order of CAUSES; none for a case and itself."""
    found = {case.changed for case in (one, other) if case.changed and one.changed != other.changed}
    if one.body != other.body:
        found.add("body")
    if one.stops != other.stops:
        found.add("restart")
    if set(one.ranks) != set(other.ranks):
        found.add("ranks")  # a split means nothing on one rank, and another grid on each number of ranks
    elif one.split != other.split:
        found.add("split")
    return [cause for cause in CAUSES if cause in found]


def environment(changed: str) -> dict[str, str]:
    """The environment variables with which a rank of a case is to be started."""
    # glibc fills what malloc gives with a byte, unless it comes from the thread's own cache.
    fill = 170 if changed == "memory" else 85
    tunables = f"glibc.malloc.perturb={fill}:glibc.malloc.tcache_count=0"
    seed = "7" if changed == "hash seed" else "0"
    return {VARIABLE: changed, "GLIBC_TUNABLES": tunables, "PYTHONHASHSEED": seed}
