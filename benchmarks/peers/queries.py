"""The group by queries of the db-benchmark that anyrank can express, beside DuckDB and polars, from one file.

    python benchmarks/peers/queries.py [--rows 1e7] [--rounds 3] [--folder FOLDER] [--only 1 2] [--csv]

The queries and the table are those of H2O.ai's db-benchmark, kept by DuckDB Labs: nine columns, K = 100. Each tool
reads the columns of a query from a Parquet or CSV file, on two cores, and writes all groups to Parquet: anyrank by a
command on two ranks, with its start; the others in one process that has started. Results are compared: keys must be
equal, and numbers to ten digits. Queries 8 (two largest values) and 9 (correlation) cannot be expressed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))
import measure

#: Keys and aggregates by the number of the query.
QUERIES = {
    "1": (("id1",), ("sum(v1)",)),
    "2": (("id1", "id2"), ("sum(v1)",)),
    "3": (("id3",), ("sum(v1)", "mean(v3)")),
    "4": (("id4",), ("mean(v1)", "mean(v2)", "mean(v3)")),
    "5": (("id6",), ("sum(v1)", "sum(v2)", "sum(v3)")),
    "6": (("id4", "id5"), ("median(v3)", "std(v3)")),
    "7": (("id3",), ("max(v1)", "min(v2)")),
    "10": (("id1", "id2", "id3", "id4", "id5", "id6"), ("sum(v3)", "count")),
}
DIVISOR = 100


def make_table(rows: int, file: Path) -> None:
    """Write the table of the benchmark: G1_ROWS_1e2_0_0."""
    random = np.random.default_rng(108)

    def names(form: str, count: int) -> pa.Array:
        words = pa.array([form % k for k in range(1, count + 1)])
        return words.take(pa.array(random.integers(0, count, rows)))

    many = max(1, rows // DIVISOR)
    columns = {"id1": names("id%03d", DIVISOR), "id2": names("id%03d", DIVISOR), "id3": names("id%010d", many)}
    columns |= {name: random.integers(1, top + 1, rows) for name, top in (("id4", 100), ("id5", 100), ("id6", many))}
    columns |= {"v1": random.integers(1, 6, rows), "v2": random.integers(1, 16, rows)}
    table = pa.table(columns | {"v3": np.round(random.random(rows) * 100, 6)})
    if file.suffix == ".csv":
        pcsv.write_csv(table, file)
    else:
        pq.write_table(table, file, row_group_size=1 << 19)


def sql(keys: tuple[str, ...], aggregates: tuple[str, ...]) -> str:
    """Return the query for DuckDB."""
    given = [
        f'{text.replace("std(", "stddev_samp(") if text != "count" else "count(*)"} AS "{text}"' for text in aggregates
    ]
    return f"SELECT {', '.join([*keys, *given])} FROM rows GROUP BY {', '.join(keys)}"


def by_duckdb(file: Path, out: Path, keys: tuple[str, ...], aggregates: tuple[str, ...]) -> None:
    """Answer a query with DuckDB."""
    import duckdb

    query = sql(keys, aggregates).replace("FROM rows", f"FROM read_{file.suffix[1:]}('{file}')")
    with duckdb.connect(config={"threads": 2, "preserve_insertion_order": False}) as connection:
        connection.execute(f"COPY ({query}) TO '{out}' (FORMAT parquet)")


def by_polars(file: Path, out: Path, keys: tuple[str, ...], aggregates: tuple[str, ...]) -> None:
    """Answer a query with polars."""
    import polars as pl

    def expression(text: str) -> Any:
        function, _, column = text.rstrip(")").partition("(")
        return (getattr(pl.col(column), function)() if column else pl.len()).alias(text)

    rows = pl.scan_csv(file) if file.suffix == ".csv" else pl.scan_parquet(file)
    groups = rows.group_by(keys).agg([expression(text) for text in aggregates])
    groups.collect(engine="streaming").write_parquet(out)


def by_anyrank(file: Path, out: Path, keys: tuple[str, ...], aggregates: tuple[str, ...]) -> None:
    """Answer a query with anyrank."""
    command = ["groupby", "--table", file, "--by", ",".join(keys), "--aggregate", ",".join(aggregates)]
    measure.run_anyrank(*command, *OUTPUT, ranks=2, folder=out.parent)
    (out.parent / "run" / "groups.parquet").rename(out)


#: Options that write the groups to Parquet only.
OUTPUT: tuple[str, ...] = ("--formats", "parquet")
TOOLS = {"anyrank": by_anyrank, "DuckDB": by_duckdb, "polars": by_polars}


def compare(ours: pa.Table, theirs: pa.Table, keys: tuple[str, ...], aggregates: tuple[str, ...]) -> str:
    """Return how the answers differ. Raises AssertionError if they are not equal to ten digits."""
    order = [(key, "ascending") for key in keys]
    tables = [table.sort_by(order) for table in (ours, theirs)]
    worst = 0.0
    for name in (*keys, *aggregates):
        mine, other = (table[name].combine_chunks() for table in tables)
        if name in keys:
            assert mine.equals(other.cast(mine.type)), name
            continue
        x, y = (column.cast(pa.float64()).to_numpy() for column in (mine, other))
        worst = max(worst, float(np.max(np.abs(x - y) / np.maximum(np.abs(x), 1e-300), initial=0)))
    assert worst < 1e-10, f"an aggregate differs by {worst}"
    return f"off by {worst:.0e}" if worst else "equal"


def main() -> None:
    """Run all queries in turn, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, default=1e7)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--only", nargs="*", choices=[*QUERIES], default=[*QUERIES])
    parser.add_argument("--csv", action="store_true", help="read CSV in place of Parquet")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        file = Path(name, "rows.csv" if given.csv else "rows.parquet")
        make_table(int(given.rows), file)
        size = file.stat().st_size
        lines = [run_query(number, file, given.rounds) for number in given.only]
    date = measure.now()
    words = " ".join(["benchmarks/peers/queries.py", *sys.argv[1:]])
    head = f"`python {words}`, {date:%Y-%m-%d %H:%M} UTC, a file of {size / 1e9:.2f} GB, {measure.machine()}.\n"
    titles = "| query | " + " | ".join(TOOLS) + " | best other / ours | answers |"
    table = "\n".join([head, titles, "|---" * (len(TOOLS) + 3) + "|", *lines])
    print(table)
    (measure.HERE / "results" / f"queries-{date:%Y-%m-%d}.md").write_text(f"# Group by queries\n\n{table}\n")


def run_query(number: str, file: Path, rounds: int) -> str:
    """Run one query `rounds` times by each tool in turn; return a row of the table."""
    keys, aggregates = QUERIES[number]
    folder = file.parent
    seconds: dict[str, list[float]] = {tool: [] for tool in TOOLS}
    for _ in range(rounds):
        for tool, answer in TOOLS.items():
            start = time.perf_counter()
            answer(file, folder / f"{tool}.parquet", keys, aggregates)
            seconds[tool].append(time.perf_counter() - start)
    tables = {tool: pq.read_table(folder / f"{tool}.parquet") for tool in TOOLS}
    found = {compare(tables["anyrank"], tables[tool], keys, aggregates) for tool in TOOLS if tool != "anyrank"}
    middle = {tool: statistics.median(values) for tool, values in seconds.items()}
    ratio = min(value for tool, value in middle.items() if tool != "anyrank") / middle["anyrank"]
    cells = [f"{middle[tool]:.2f} s" for tool in TOOLS]
    print(number, json.dumps(seconds), file=sys.stderr, flush=True)
    what = f"{number}: {', '.join(aggregates)} by {', '.join(keys)}"
    return f"| {what} | " + " | ".join(cells) + f" | {ratio:.2f} | {'; '.join(sorted(found))} |"


if __name__ == "__main__":
    main()
