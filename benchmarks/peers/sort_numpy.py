"""np.sort on one core. For int64 it uses AVX-512 if the processor has it.

AMD's Zen 4 processors do not gain from that, because `vpcompressq` to memory is microcode there
(https://github.com/numpy/x86-simd-sort/issues/6). See also sort_avx2.py.
"""

import numpy as np

from peer import Peer
from tasks import key_answer, keys_of


class NumPy(Peer):
    name = "np.sort, one core"
    cores = (1, 2)
    goals = {2: 1.3}

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        self.keys = keys_of(size)

    def run(self):
        self.output = np.sort(self.keys)

    def answer(self):
        return key_answer([self.output])
