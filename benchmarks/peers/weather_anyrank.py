"""anyrank: the steps of the program `anyrank run weather`, on one or two ranks."""

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

        from anyrank.programs.weather import Weather
        from anyrank.state import State
        from anyrank.world import World

        self.program = Weather(rows=size["side"], columns=size["side"])
        self.state = State(World(comm or MPI.COMM_SELF))
        self.program.declare(self.state)
        self.program.setup(self.state)

    def run(self):
        for _ in range(self.size["steps"]):
            self.program.step(self.state)
            self.state.step += 1

    def answer(self):
        found = {name: self.state.members[name].gather() for name in ("p", "u", "v")}
        return {name: np.empty(0) if array is None else array for name, array in found.items()}
