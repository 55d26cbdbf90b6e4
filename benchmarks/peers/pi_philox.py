"""The program of pi_numpy.py with NumPy's Philox (4x64-10), a counter-based generator like anyrank's (4x32-10)."""

import numpy as np

import pi_numpy


class Philox(pi_numpy.NumPy):
    name = "NumPy, Philox"
    goals = {}

    def make(self):
        return np.random.Generator(np.random.Philox(1))
