"""Dask dataframe, on threads. If there are many groups, the result has several partitions, which is faster."""

import dask
import dask.dataframe as dd
import pandas as pd

from peer import Peer
from tasks import group_answer, table_of

#: The number of partitions of the rows, and of the result if there are many groups.
PARTS = 4, 16
#: A larger number of groups counts as many.
MANY = 10_000_000


class Dask(Peer):
    name = "Dask dataframe"
    packages = ("dask", "pandas")
    cores = (2,)
    tolerance = 1e-11
    goals = {2: 20.0}

    @classmethod
    def share_of(cls, size):
        # All rows would take 13 GB of memory, and 20 GB with many groups.
        return 1.0 if size["rows"] < 10_000_000 else 0.1 if size["groups"] > MANY else 0.25

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        keys, values = table_of(size, self.share_of(size))
        self.table = dd.from_pandas(pd.DataFrame({"key": keys, "value": values}), npartitions=PARTS[0], sort=False)
        self.into = PARTS[1] if size["groups"] > MANY else 1
        self.details = {"Dask dataframe": f"{cores} threads, {PARTS[0]} partitions, of many groups {PARTS[1]}"}

    def run(self):
        groups = self.table.groupby("key", sort=False)
        found = groups.agg({"value": ["count", "sum", "mean"]}, split_out=self.into)
        with dask.config.set(scheduler="threads", num_workers=self.count):
            self.output = found.compute()

    def release_memory(self):
        columns = {name: self.output["value", name].to_numpy() for name in ("count", "sum", "mean")}
        self.summary = group_answer(self.output.index.to_numpy(), **columns)
        del self.output

    def answer(self):
        return self.summary
