"""anyrank: the steps of the program `anyrank run pi`, on one or two ranks."""

import numpy as np

from peer import Peer


class Anyrank(Peer):
    name = "anyrank"
    packages = ("anyrank", "numpy", "mpi4py")
    cores = (1, 2)
    ranks = True

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        from mpi4py import MPI

        from anyrank.programs.pi import Pi
        from anyrank.state import State
        from anyrank.world import World

        self.program = Pi(points=size["points"])
        self.state = State(World(comm or MPI.COMM_SELF))
        self.program.declare(self.state)

    def run(self):
        self.state.hits, self.state.step = 0, 0
        while self.state.step < self.program.steps:
            self.program.step(self.state)
            self.state.step += 1

    def answer(self):
        return {"hits": np.array(self.state.hits)}
