"""anyrank: exact.sum, which is correctly rounded."""

import numpy as np

from peer import Peer
from tasks import numbers


class Anyrank(Peer):
    name = "anyrank"
    packages = ("anyrank", "numpy")

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        self.values = numbers(size)

    def run(self):
        from anyrank import exact

        self.sum = exact.sum(self.values, local=True)

    def answer(self):
        return {"sum": np.array(self.sum)}
