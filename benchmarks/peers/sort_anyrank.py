"""anyrank: each rank has a block of the keys, and gets a block of the sorted keys."""

from peer import Peer
from tasks import key_answer, keys_of, rows_of


class Anyrank(Peer):
    name = "anyrank"
    packages = ("anyrank", "numpy", "mpi4py")
    cores = (1, 2)
    ranks = True

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        from mpi4py import MPI

        from anyrank.world import World

        self.world = World(comm or MPI.COMM_SELF)
        self.keys = keys_of(size)[rows_of(self.world.comm, size["keys"])].copy()

    def run(self):
        from anyrank.keyed.sorting import sort

        self.output, _ = sort(self.world, self.keys)

    def answer(self):
        return key_answer(self.world.gather(self.output) or [])
