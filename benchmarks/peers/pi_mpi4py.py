"""A plain program with mpi4py and NumPy: one generator per rank, and one reduction."""

import numpy as np

from peer import Peer
from pi_numpy import count


class Mpi4py(Peer):
    name = "mpi4py + NumPy"
    packages = ("numpy", "mpi4py")
    cores = (2,)
    ranks = True

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        self.generator = np.random.default_rng([1, comm.rank])

    def run(self):
        points, rank, ranks = self.size["points"], self.comm.rank, self.comm.size
        mine = points * (rank + 1) // ranks - points * rank // ranks
        self.hits = self.comm.allreduce(count(self.generator, mine))

    def answer(self):
        return {"hits": np.array(self.hits)}
