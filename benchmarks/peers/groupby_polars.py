"""polars: a DataFrame in memory, by the streaming engine, which is faster here than the in-memory engine."""

import polars as pl

from peer import Peer
from tasks import group_answer, table_of


class Polars(Peer):
    name = "polars, streaming"
    packages = ("polars",)
    cores = (2,)
    tolerance = 1e-11

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        keys, values = table_of(size)
        self.table = pl.DataFrame({"key": keys, "value": values})

    def run(self):
        value = pl.col("value")
        groups = self.table.lazy().group_by("key").agg(count=pl.len(), sum=value.sum(), mean=value.mean())
        self.output = groups.collect(engine="streaming")

    def release_memory(self):
        self.summary = group_answer(**{name: self.output[name].to_numpy() for name in ("key", "count", "sum", "mean")})
        del self.output

    def answer(self):
        return self.summary
