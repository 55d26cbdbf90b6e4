"""The same with NumPy's Philox, a counter-based generator as ours is (4x64-10; ours is 4x32-10)."""

import numpy as np

import pi_numpy


class Philox(pi_numpy.NumPy):
    name = "NumPy, Philox"
    goals = {}

    def make(self):
        return np.random.Generator(np.random.Philox(1))
