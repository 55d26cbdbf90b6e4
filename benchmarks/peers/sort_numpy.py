"""np.sort as it is, on one core: of int64 it takes AVX-512, where the processor has it.

Of AMD's processors Zen 4 does not gain by it: there `vpcompressq` into memory is microcode
(https://github.com/numpy/x86-simd-sort/issues/6). See also sort_avx2.py.
"""

import numpy as np

from peer import Peer
from tasks import in_order, keys_of


class NumPy(Peer):
    name = "np.sort, one core"
    cores = (1, 2)
    goals = {2: 1.3}

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        self.keys = keys_of(size)

    def run(self):
        self.found = np.sort(self.keys)

    def answer(self):
        return in_order([self.found])
