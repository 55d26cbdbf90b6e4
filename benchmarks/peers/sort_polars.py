"""polars: a Series, sorted by all threads."""

import polars as pl

from peer import Peer
from tasks import key_answer, keys_of


class Polars(Peer):
    name = "polars"
    packages = ("polars",)
    cores = (2,)
    goals = {2: 5.0}

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        self.keys = pl.Series("key", keys_of(size))

    def run(self):
        self.output = self.keys.sort()

    def answer(self):
        return key_answer([self.output.to_numpy()])
