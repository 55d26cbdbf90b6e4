"""The unchanged π example of Spark (examples/src/main/python/pi.py): a Python function is called for every point."""

from operator import add
from random import random

import pi_spark


class SparkPlain(pi_spark.Spark):
    name = "Spark, its own example"
    share = 0.01

    def run(self):
        def inside(_):
            x, y = random() * 2 - 1, random() * 2 - 1
            return 1 if x**2 + y**2 <= 1 else 0

        self.hits = self.context.parallelize(range(self.points), self.count).map(inside).reduce(add)
