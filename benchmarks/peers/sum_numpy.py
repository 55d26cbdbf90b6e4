"""np.sum, which adds pairwise: it is fast, but not exact, and its result depends on the split."""

import numpy as np

from peer import Peer
from tasks import numbers


class NumPy(Peer):
    name = "np.sum (not exact)"
    tolerance = 1e-9
    behind = "it rounds at every addition and does not say how far off it is"

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        self.values = numbers(size)

    def run(self):
        self.sum = np.sum(self.values)

    def answer(self):
        return {"sum": np.array(self.sum)}
