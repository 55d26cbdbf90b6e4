"""math.fsum, the correctly rounded sum of the Python standard library."""

import math

import numpy as np

from peer import Peer
from tasks import numbers


class Fsum(Peer):
    name = "math.fsum"

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        self.values = numbers(size)

    def run(self):
        self.sum = math.fsum(self.values)

    def answer(self):
        return {"sum": np.array(self.sum)}
