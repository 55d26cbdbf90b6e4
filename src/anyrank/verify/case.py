"""Cases: different ways to run one program, which must all give the same state."""

from __future__ import annotations

from dataclasses import dataclass

#: The properties in which two cases may differ, the most specific first, and what different results then mean.
CAUSES = {
    "again": "A case that ran twice gave different results. Look for a race between ranks, such as a file that one of "
    "them writes and another reads, and for randomness that cannot be fixed: the entropy of the system, datetime.now, "
    "the id of an object. Remove it first: until then no other difference is conclusive.",
    "memory": "New memory had other content: a value is read before it is written, such as an element of np.empty.",
    "clock": "The clock was different: the state depends on time.time, perf_counter, MPI.Wtime or similar.",
    "chance": "Unseeded random numbers had other values: take random numbers from state.random, by global index.",
    "file order": "Files were listed in another order, which os.listdir, glob and similar functions do not define: "
    "sort the names.",
    "hash seed": "Python's hash seed was different: the program depends on the order of a set, or on hash() of a "
    "string. Sort the set, or use a list or a dict, whose order is that of insertion.",
    "timing": "The ranks were delayed in turn. This is a race: the state depends on which rank is first, as with "
    "MPI.ANY_SOURCE.",
    "parts": "The kernel depends on how a block is divided into regions. For large blocks, advance always calls it "
    "separately on the interior and on the borders: each point must be computed from the kernel's arguments alone. The "
    "rank's own indices, and arrays with the shape of the block, match only the whole block: declare a Field for them, "
    "fill it in setup, and pass that Field to advance.",
    "weights": "The blocks of the ranks had other sizes (--weights), which the state depends on: look for the size or "
    "the beginning of a block that is computed as n // ranks. Use field.indices, layout.start and layout.local_shape.",
    "body": "The bodies of a kernel give different bits; the reference body is its definition.",
    "restart": "Data outside the State, on self or in a module, is lost at resume: add it to the State.",
    "extended": "The run with fewer steps and then more of them differs: the State or the result depends on the number "
    "of steps, or data outside the State is lost at resume. Declare the parameter with extendable=False if a run with "
    "more steps is another run.",
    "split": "The state depends on which axes are split: check the corners of the halo, and that no axis is used in "
    "the place of another.",
    "ranks": "The program depends on the number of ranks: look for random numbers keyed by rank, a reduction over one "
    "rank's elements such as np.sum, a floating-point sum over ranks (use exact.sum), ghost cells that are not "
    "exchanged, and local indices in the place of global ones.",
    "halo steps": "With --halo-steps, ranks exchange wider halos less often and compute the ghost cells between "
    "themselves. So only setup and kernels may write fields, and a kernel must compute each point from its arguments "
    "alone and write nothing else: a cell next to a border is computed on several ranks, which a counter or a sum in a "
    "kernel counts twice. Correct the program, or remove deep_halos = True from it.",
}
#: The environment variable with the name of the property that a case changes.
VARIABLE = "ANYRANK_VERIFY"
#: The causes that are properties of the environment of a run: a case may change one of them.
PERTURBATIONS = ("memory", "clock", "chance", "file order", "hash seed")


@dataclass(frozen=True)
class Case:
    """A way to run the program: the ranks of each of its runs, and the steps at which it stops between them.

    `changed` names one property of the environment (a cause) that differs from the reference, or is empty. A case with
    `extended` first runs with this number of steps as its parameter `steps`, and then with all steps.
    """

    ranks: tuple[int, ...] = (1,)
    stops: tuple[int, ...] = ()
    body: str = "auto"
    split: str = "auto"
    changed: str = ""
    extended: int = 0

    @property
    def count(self) -> str:
        """The ranks in the format of the table."""
        return "→".join(map(str, self.ranks))

    @property
    def regions(self) -> str:
        """The regions on which `advance` calls a kernel."""
        return "small regions of a block" if self.changed == "parts" else "the whole block"

    @property
    def what(self) -> str:
        """How the case differs from a plain run."""
        stops = f"stopped at step {', '.join(map(str, self.stops))}" if self.stops else ""
        changed = self.changed if self.changed in ("", "again") else f"other {self.changed}"
        extended = f"extended from {self.extended} steps" if self.extended else ""
        return " and ".join(part for part in (stops, extended, changed) if part) or "straight"

    def __str__(self) -> str:
        ranks = f"{self.count} rank{'s' * (self.ranks != (1,))}"
        return f"{ranks}, split {self.split}, body {self.body}, {self.what}"


REFERENCE = Case(body="reference")


def causes(case: Case, other: Case) -> list[str]:
    """Return the properties in which two cases differ, in the order of CAUSES; empty for identical cases."""
    differing = {changed for changed in (case.changed, other.changed) if changed and case.changed != other.changed}
    if case.body != other.body:
        differing.add("body")
    if case.stops != other.stops:
        differing.add("restart")
    if case.extended != other.extended:
        differing.add("extended")
    if set(case.ranks) != set(other.ranks):
        differing.add("ranks")  # the split gives another grid for each number of ranks, so it is not compared
    elif case.split != other.split:
        differing.add("split")
    return [cause for cause in CAUSES if cause in differing]


def environment(changed: str) -> dict[str, str]:
    """Return the environment variables for a rank of a case."""
    # glibc fills memory from malloc with the complement of this byte, 0xaa. It does not fill memory from the cache of
    # the thread, which is disabled here. `rank` changes the byte for the case "memory".
    tunables = f"glibc.malloc.perturb={0xAA ^ 0xFF}:glibc.malloc.tcache_count=0"
    seed = "9" if changed == "hash seed" else "0"  # 10 on rank 1, and so on: see `seeded`
    return {VARIABLE: changed, "GLIBC_TUNABLES": tunables, "PYTHONHASHSEED": seed}
