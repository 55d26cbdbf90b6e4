"""DuckDB: from one table in memory to another. Arrow tables as input are as fast; NumPy arrays as output are slower."""

import duckdb

from peer import Peer
from tasks import group_answer, table_of


class DuckDB(Peer):
    name = "DuckDB"
    packages = ("duckdb",)
    cores = (2,)
    tolerance = 1e-11

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        self.connection = duckdb.connect(config={"threads": cores, "preserve_insertion_order": False})
        columns = dict(zip(("key", "value"), table_of(size), strict=True))  # noqa: F841  (the query finds it)
        self.connection.execute("CREATE TABLE rows AS SELECT key, value FROM columns")

    def run(self):
        self.connection.execute(
            "CREATE TEMP TABLE found AS SELECT key, count(*) AS count, sum(value) AS sum, avg(value) AS mean "
            "FROM rows GROUP BY key"
        )

    def release_memory(self):
        self.summary = group_answer(**self.connection.execute("SELECT * FROM found").fetchnumpy())
        self.connection.execute("DROP TABLE found")

    def answer(self):
        return self.summary
