"""A plain NumPy program, in pieces that fit into the cache."""

import numpy as np

from peer import Peer
from tasks import LIMIT

PIECE = 1 << 16


def count(generator, points):
    """Count the random points that lie in the quarter circle."""
    hits = 0
    for first in range(0, points, PIECE):
        x, y = generator.random((2, min(PIECE, points - first)))
        hits += np.count_nonzero(x * x + y * y < 1)
    return hits


class NumPy(Peer):
    name = "NumPy"
    goals = {1: 100.0}
    behind = LIMIT

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        self.generator = self.make()

    def make(self):
        """Return the generator: PCG64, the default of NumPy."""
        return np.random.default_rng(1)

    def run(self):
        self.hits = count(self.generator, self.size["points"])

    def answer(self):
        return {"hits": np.array(self.hits)}
