"""anyrank: a Table on two ranks, with exact sums that are rounded once."""

import numpy as np

from peer import Peer
from tasks import group_answer, rows_of, table_of


class Anyrank(Peer):
    name = "anyrank"
    packages = ("anyrank", "numpy", "mpi4py")
    cores = (2,)
    ranks = True

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        from anyrank.keyed import Table
        from anyrank.state import State
        from anyrank.world import World

        mine = rows_of(comm, size["rows"])
        self.keys, self.values = (column[mine].copy() for column in table_of(size))
        self.state = State(World(comm))
        self.state.add(Table("groups", self.state.world, {"key": "int64"}, {"value": ("float64", "exact")}))

    def run(self):
        from anyrank.kernel import Kernel
        from anyrank.keyed.window import Window

        self.state.groups.gather(self.keys, value=self.values)
        found, quotient = self.state.groups.columns, Kernel("group", "quotient")
        origin = Window(*self.state.groups.metadata["value_window"].tolist()).origin
        limbs, count, special = found["value"], found["count"], found["value_special"]
        total, mean = (quotient(limbs, n, origin, special) for n in (np.ones_like(count), count))
        self.output = {"key": found["key"], "count": count, "sum": total, "mean": mean}

    def release_memory(self):
        self.summary = group_answer(**self.output)
        del self.output
        self.state.groups.clear()

    def answer(self):
        parts = self.comm.gather(self.summary)
        return joined(parts) if parts else {}


def joined(parts):
    """Join the groups of all ranks, and sort them by key; each group is on one rank only."""
    order = np.argsort(np.concatenate([part["key"] for part in parts]))
    return {
        name: np.concatenate([part[name] for part in parts])[order] if value.ndim else sum(part[name] for part in parts)
        for name, value in parts[0].items()
    }
