"""Dask dataframe, on threads: many groups come out in several partitions, which is faster for them."""

import dask
import dask.dataframe as dd
import pandas as pd

from peer import Peer
from tasks import grouped, table_of

#: Partitions of the rows, and of many groups.
PARTS = 4, 16
#: More are many groups.
MANY = 10_000_000


class Dask(Peer):
    name = "Dask dataframe"
    packages = ("dask", "pandas")
    cores = (2,)
    tolerance = 1e-11
    goals = {2: 20.0}

    @classmethod
    def share_of(cls, size):
        # All rows would take 13 GB, with many groups 20.
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
            self.found = found.compute()

    def rest(self):
        columns = {name: self.found["value", name].to_numpy() for name in ("count", "sum", "mean")}
        self.told = grouped(self.found.index.to_numpy(), **columns)
        del self.found

    def answer(self):
        return self.told
