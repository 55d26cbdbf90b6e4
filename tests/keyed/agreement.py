"""Group random tables on several numbers of ranks: `make agreement TABLES=2000`.

The digests, the groups and groups.csv must be the same on all ranks, also if a run is stopped and resumed on another
number of ranks. The groups must be those of Python's `fractions` and `decimal`, and, if DuckDB can be imported, those
of DuckDB (floating-point results of DuckDB are rounded many times, so they are compared with a tolerance).

    python tests/keyed/agreement.py --tables 2000 --ranks 1,2,3,5
    python tests/keyed/agreement.py --first 123 --tables 1        one table
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from datetime import date
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from keyed.random_tables import Case, as_json, key_of
from mpi4py import MPI
from ranks import OPEN_MPI, mpiexec_path

from anyrank import State
from anyrank.errors import AnyrankError
from anyrank.keyed.programs.groupby import GroupBy
from anyrank.storage.checkpoints import Checkpoints
from anyrank.world import World

#: Tables for each start of the ranks.
BATCH = 250


def group(world: World, options: dict, folder: Path, stop: int = -1) -> tuple[int, list, str] | None:
    """Run groupby to its end, or to a checkpoint at step `stop`; begin with the checkpoint in `folder`, if any.

    Returns the digest, the groups, and a hash of groups.csv, or None with `stop`.
    """
    program, state = GroupBy(**options), State(world, folder=folder)
    program.declare(state)
    state.allocate()
    checkpoints = Checkpoints(folder / "checkpoints", state, "groupby", {})
    if world.on_root((folder / "checkpoints").exists):
        checkpoints.restore()
    while state.step < program.steps and state.step != stop:
        program.step(state)
        state.step += 1
    if stop >= 0:
        checkpoints.begin()
        checkpoints.finish()
        return None
    digest = state.digest()
    groups = program.result(state)["first"]
    return digest, groups, world.on_root(lambda: sha256((folder / "groups.csv").read_bytes()).hexdigest())


def run_case(worlds: list[World], number: int, tables: Path, folder: Path) -> dict:
    """Group one table on all ranks of the last world, every second time after a part on fewer ranks, or the reverse.

    `worlds[k]` has the first k + 1 ranks, and only these use it.
    """
    world, case = worlds[-1], Case(number)
    options = case.options(tables / str(number))
    before, after = world.size, world.size
    if number % 2:  # stopped, and resumed on other ranks
        fewer = 1 + number // 4 % world.size
        before, after = (fewer, world.size) if number % 4 == 1 else (world.size, fewer)
    result: dict = {}
    if world.rank == 0:
        folder.mkdir()
    world.barrier()
    try:
        if number % 2 and world.rank < before:
            group(worlds[before - 1], options, folder, stop=1 + number % 3)
        world.barrier()
        if world.rank < after:
            digest, groups, text = group(worlds[after - 1], options, folder)
            result = {"digest": digest, "groups": groups, "csv": text}
    except AnyrankError as error:
        result = {"error": str(error)}
    world.barrier()
    return {"case": number, **result}


def work(first: int, last: int, folder: Path) -> None:
    """Group the tables `first` to `last` on the ranks of this MPI job; rank 0 writes a line for each."""
    comm = MPI.COMM_WORLD
    worlds = [World(comm.Split(int(comm.rank >= size))) for size in range(1, comm.size + 1)]
    scratch = Path(comm.bcast(tempfile.mkdtemp(dir=folder) if comm.rank == 0 else None))
    try:
        with (folder / f"{comm.size}.jsonl").open("a") as lines:
            for number in range(first, last):
                result = run_case(worlds, number, folder / "tables", scratch / str(number))
                if comm.rank == 0:
                    lines.write(json.dumps(result) + "\n")
                    lines.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        comm.Abort(1)


def launch(ranks: int, first: int, last: int, folder: Path) -> dict[int, dict]:
    """Run `work` on ranks and return its results by number. A table that ends all ranks is left out, and named."""
    path, number = folder / f"{ranks}.jsonl", first
    path.unlink(missing_ok=True)
    while number < last:
        command = [mpiexec_path(), "-n", ranks, sys.executable, __file__, "--work", number, last, folder]
        done = subprocess.run(
            [*map(str, command)], capture_output=True, text=True, env={**os.environ, **OPEN_MPI}, check=False
        )
        results = [json.loads(line) for line in path.read_text().splitlines()]
        reached = results[-1]["case"] + 1 if results else number
        if done.returncode:
            print(f"case {max(reached, number)} ended {ranks} ranks:\n{done.stderr[-3000:]}", flush=True)
            reached = max(reached, number) + 1
        number = last if not done.returncode else reached
    return {result["case"]: result for result in results}


def of_duckdb(duckdb, case: Case) -> dict[tuple, list]:
    """The groups of DuckDB by key."""
    import pyarrow as pa

    rows = pa.concat_tables([case.arrow(columns) for columns in case.files])
    names = {"mean": "avg({}::double)", "nunique": "count(distinct {})", "var": "var_samp({})"}
    names["median"] = "median({}::double)"  # of decimals it would have their digits
    cells = [names.get(f, f"{f}({{}})").format(name or "*") for f, name in case.aggregates]
    query = f"select {', '.join([*case.keys, *cells])} from rows {case.where and f'where {case.where}'} group by all"
    found = duckdb.sql(query).fetchall() if rows.num_rows else []
    return {tuple(key_of(v) for v in row[: len(case.keys)]): [*row[len(case.keys) :]] for row in found}


def agrees(ours, theirs, column: list, function: str) -> bool:
    """Whether a result is that of DuckDB: exactly, except for floats."""
    if isinstance(ours, float) or isinstance(theirs, float):
        numbers = [abs(float(value)) for value in column]
        if ours is None or theirs is None or not all(number < 1e290 for number in numbers):  # also NaN
            return True  # DuckDB orders NaN otherwise, and overflows where a result does not
        scale = math.fsum(numbers) ** (2 if function == "var" else 1)
        smallest = math.ulp(0.0)  # the product below underflows for such values
        return abs(float(ours) - float(theirs)) <= max(1e-9 * scale, smallest)
    if theirs is None and function == "sum":
        return Decimal(ours) == 0  # the sum of no values
    if isinstance(theirs, Decimal | int) and ours is not None:
        return Decimal(ours) == theirs
    return ours == (as_json(theirs) if isinstance(theirs, date) else theirs)


def differs_from_duckdb(duckdb, case: Case, groups: list[list]) -> str:
    """What differs from DuckDB; empty: nothing."""
    try:
        theirs = of_duckdb(duckdb, case)
    except duckdb.Error as error:
        return "" if "Out of Range" in str(error) or "verflow" in str(error) else f"DuckDB: {error}"
    keyed = {tuple(map(as_json, key)): cells for key, cells in theirs.items()}
    if len(keyed) != len(groups):
        return f"{len(groups)} groups, DuckDB {len(keyed)}"
    members: dict[tuple, list] = {}
    for columns in case.files:
        for row in zip(*columns.values(), strict=True):
            values = dict(zip(columns, row, strict=True))
            members.setdefault(tuple(as_json(key_of(values[name])) for name in case.keys), []).append(values)
    for row in groups:
        key = tuple(map(key_of, row[: len(case.keys)]))
        for (function, name), ours, other in zip(case.aggregates, row[len(key) :], keyed.get(key, []), strict=True):
            number = case.kinds.get(name) not in (None, "text", "date", "time")
            column = [values[name] for values in members[key] if values[name] is not None] if number else []
            if not agrees(ours, other, column, function):
                return f"{key} {function}({name}) is {ours}, DuckDB {other}"
    return ""


def check(number: int, results: dict[int, dict], duckdb) -> str:
    """What is wrong with the results of a table by the number of ranks; empty: nothing."""
    case = Case(number)
    for ranks, result in results.items():
        if "groups" not in result:
            return f"{ranks} ranks: {result.get('error', 'no result')}"
    first = next(iter(results.values()))
    for ranks, result in results.items():
        for what in ("digest", "csv"):
            if result[what] != first[what]:
                return f"another {what} on {ranks} ranks"
    expected = case.answer()
    if repr(first["groups"]) != repr(expected):
        pairs = zip(first["groups"], expected, strict=False)
        wrong = next(((a, b) for a, b in pairs if repr(a) != repr(b)), (len(first["groups"]), len(expected)))
        return f"{wrong[0]} is not the answer of Python: {wrong[1]}"
    return differs_from_duckdb(duckdb, case, first["groups"]) if duckdb else ""


def compare(first: int, tables: int, ranks: list[int]) -> int:
    """Group tables on several numbers of ranks; print what differs, and return how many tables do."""
    try:
        import duckdb
    except ImportError:
        duckdb = None
    seen: Counter = Counter()
    for begin in range(first, first + tables, BATCH):
        end = min(begin + BATCH, first + tables)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "tables").mkdir()
            for number in range(begin, end):
                Case(number).write(folder / "tables" / str(number))
            results = {size: launch(size, begin, end, folder) for size in ranks}
        for number in range(begin, end):
            wrong = check(number, {size: found.get(number, {}) for size, found in results.items()}, duckdb)
            seen["differ" if wrong else "agree"] += 1
            if wrong:
                print(f"case {number} ({' '.join(Case(number).formats)}): {wrong[:1000]}", flush=True)
        print(f"tables {first} to {end - 1}: {seen['agree']} agree, {seen['differ']} differ", flush=True)
    other = f"DuckDB {duckdb.__version__}" if duckdb else "not with DuckDB, which is not installed"
    print(f"{tables} tables on {ranks} ranks, compared with Python and {other}: {seen['differ']} differ")
    return seen["differ"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="the number of the first table")
    parser.add_argument("--ranks", default="1,2,3,5")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.work:
        work(int(words.work[0]), int(words.work[1]), Path(words.work[2]))
    else:
        sys.exit(min(1, compare(words.first, words.tables, [*map(int, words.ranks.split(","))])))
