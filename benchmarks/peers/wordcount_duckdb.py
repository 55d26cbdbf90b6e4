"""DuckDB: lines are split and unnested. regexp_split_to_array is slower, and read_text is much slower."""

import duckdb

from peer import Peer
from tasks import TEXT, word_answer

#: Empty words are removed last, when they are one group.
QUERY = r"""
    SELECT word, count(*) AS count
    FROM (SELECT unnest(string_split(line, ' ')) AS word FROM read_csv('{path}', columns = {{line: 'VARCHAR'}},
        delim = '\x01', header = false, quote = '', escape = '', auto_detect = false))
    GROUP BY word HAVING word <> '' ORDER BY count DESC, word
"""


class DuckDB(Peer):
    name = "DuckDB"
    packages = ("duckdb",)
    cores = (2,)
    goals = {2: 3.0}

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        self.connection = duckdb.connect(config={"threads": cores, "preserve_insertion_order": False})

    def run(self):
        self.output = self.connection.execute(QUERY.format(path=self.folder.parent / TEXT)).fetchnumpy()

    def answer(self):
        return word_answer([word.encode() for word in self.output["word"]], self.output["count"].tolist())
