"""Fuzz the readers of tables: `make fuzz FUZZ_SECONDS=3600`.

Each case damages a small valid file of one format and reads it whole and in parts, as one and as two ranks would. The
rows must be the same, or all must raise an error for users that names the file or the column. A traceback, another
exception, a crash and a hang are failures. A case depends only on its number; failing files are kept in runs/fuzz.

    python tests/keyed/fuzz.py --seconds 60          random cases; the first number is printed
    python tests/keyed/fuzz.py --case 123            one case, in this process
"""

from __future__ import annotations

import argparse
import gzip
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet

sys.path.insert(0, str(Path(__file__).parents[1]))

from keyed.tables.samples import LOG, plain, write_hdf5, write_npy, write_parquet

from anyrank.errors import AnyrankError
from anyrank.keyed import array_inputs, reader_process
from anyrank.keyed.sort_keys import Key
from anyrank.keyed.tables import TableFiles
from anyrank.keyed.tables.columns import ColumnSpec, parse_key
from anyrank.keyed.tables.csv import CsvFile
from anyrank.world import World

KEPT = Path(__file__).parents[2] / "runs" / "fuzz"
ROWS = {name: values[:60] for name, values in LOG.items()}
CSV = "user,price,items,time\n" + "".join(
    f'"{user}, ""{n}""\n",{price},{items},{when:%Y-%m-%dT%H:%M:%SZ}\n'
    for n, (user, price, items, when) in enumerate(zip(*ROWS.values(), strict=True))
)
COLUMNS = [ColumnSpec("user"), ColumnSpec("price", role="any"), ColumnSpec("items"), parse_key("date(time)")]
#: Seconds without a new case after which the process of the cases is said to hang.
PATIENCE = 90


def write_text(path):
    path.write_bytes(gzip.compress(CSV.encode(), mtime=0) if path.suffix == ".gz" else CSV.encode())


def write_utf_16(path):
    path.write_text(CSV, encoding="utf-16")


def write_small_pages(path):
    options = {"row_group_size": 25, "data_page_size": 64, "write_page_checksum": True, "compression": "zstd"}
    pa.parquet.write_table(pa.table(ROWS), path, use_dictionary=["items"], **options)


def write_chunks(path):
    with h5py.File(path, "w", libver="latest") as file:
        for name, column in columns().items():
            file.create_dataset(name, data=column, chunks=(16,), compression="gzip", shuffle=True, fletcher32=True)


def write_records(path):
    with h5py.File(path, "w") as file:
        dtype = [(name, column.dtype) for name, column in columns().items()]
        file.create_dataset("t", data=np.array([*zip(*columns().values(), strict=True)], dtype), chunks=(7,))


def write_variable_text(path):
    with h5py.File(path, "w") as file:
        for name, column in columns().items():
            file[name] = [word.decode() for word in column] if name == "user" else column
        file["time"].attrs["units"] = "s since 1970"


def columns():
    from keyed.tables.samples import arrays as columns_of

    return columns_of(ROWS)


FORMATS = {
    "plain.csv": write_text,
    "zipped.csv.gz": write_text,
    "wide.csv": write_utf_16,
    "groups.parquet": lambda path: write_parquet(path, ROWS),
    "pages.parquet": write_small_pages,
    "columns.h5": lambda path: write_hdf5(path, ROWS),
    "chunks.h5": write_chunks,
    "records.h5": write_records,
    "variable.h5": write_variable_text,
    "rows.npy": lambda path: write_npy(path, ROWS),
}


@cache
def valid(name):
    """The bytes of the valid file with this name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        FORMATS[name](path)
        return path.read_bytes()


def damaged(number):
    """The name and the bytes of a case."""
    random = Random(number)
    name = random.choice([*FORMATS])
    data = bytearray(valid(name))
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        at = random.choice((random.randrange(len(data)), random.randrange(min(200, len(data)))))
        at = random.choice((at, at, max(0, len(data) - 1 - random.randrange(400))))
        length = random.choice((1, 2, 4, 8, 64))
        kind = random.randrange(6)
        if kind <= 1:
            data[at] ^= 1 << random.randrange(8)
        elif kind == 2:
            number_ = random.choice((0, 1, 2**7, 2**31 - 1, 2**31, 2**63 - 1, 2**64 - 1, random.getrandbits(64)))
            data[at : at + length] = number_.to_bytes(8, random.choice(("little", "big")))[:length]
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            data[at:at] = data[at : at + length]
        else:
            del data[at:]
        if not data:
            break
    return name, bytes(data)


def outcome(read, name):
    """The rows that a call reads, or the error for users; any other exception is a failure."""
    try:
        return repr(read())
    except AnyrankError as error:
        assert name in str(error) or "column" in str(error), f"the error does not name the file: {error}"
        return AnyrankError


def table_rows(world, path, specs, cuts, chunk):
    """The rows of a table file, read in parts."""
    files = TableFiles(str(path), specs, world, on_bad="skip")
    rows = []
    for step in range(files.chunks(chunk or max(1, files.size))):
        first = step * (chunk or files.size)
        last = min(files.size, first + (chunk or files.size))
        ends = [first + (last - first) * k // cuts for k in range(cuts + 1)]
        for begin, end in pairwise(ends):
            for batch in files.read(begin, end):
                rows += zip(*map(plain, batch.values()), strict=True)
    return files.bad.count, rows


def array_rows(path, key, step):
    """The keys of an array file, read in parts."""
    table = array_inputs.open_array_file(str(path), (Key(key),) if key else ())
    return [
        key for row in range(0, table.rows, step) for key in table.read(row, min(row + step, table.rows))[0][0].tolist()
    ]


def check(world, number, folder):
    """Read one case in all ways. Raises an exception if it fails."""
    name, data = damaged(number)
    path = folder / name
    path.write_bytes(data)
    specs = (
        [ColumnSpec(f"t.{spec.column}", spec.function, spec.role) for spec in COLUMNS] if "records" in name else COLUMNS
    )
    CsvFile.block = 100 + number % 1000
    ways = [(1, 0), (2, 0), (1, len(data) // 3 + 1)]
    results = {outcome(lambda way=way: table_rows(world, path, specs, *way), name) for way in ways}
    assert len(results) == 1, f"other rows for other parts: {results}"
    if path.suffix in (".h5", ".npy"):
        key = {"records.h5": "items", "rows.npy": "items"}.get(name, "price")
        results |= {outcome(lambda step=step: array_rows(path, key, step), name) for step in (1 << 20, 7)}
        assert len(results) <= 2, "other rows for other parts"
    return "read" if AnyrankError not in results else "refused"


def work(first, seconds):
    """Print the number of each case before it begins, and how it ended."""
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
    reader_process.CPU_SECONDS = 3
    world, end = World(), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            print(first, flush=True)
            try:
                print(check(world, first, Path(folder)), flush=True)
            except Exception as error:
                print("failed", f"{type(error).__name__}: {error}".replace("\n", " ")[:500], flush=True)
            first += 1


def lines_of(process):
    """Yield what a process prints; None at its end, or if it prints nothing for PATIENCE seconds."""
    while select.select([process.stdout], [], [], PATIENCE)[0] and (line := process.stdout.readline()):
        yield line.decode().strip()


def supervise(first, seconds):
    """Run cases in processes that are replaced when they crash or hang. Return the number of failures."""
    end, counts = time.monotonic() + seconds, Counter()
    print(f"fuzz: cases from {first}, for {seconds} s", flush=True)
    while (left := end - time.monotonic()) > 0:
        command = [sys.executable, __file__, "--work", str(first), "--seconds", str(left)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0)
        number, open_case = first, False
        for line in lines_of(process):
            if line.isdigit():
                number, open_case = int(line), True
                continue
            open_case = False
            counts[line.split()[0]] += 1
            if line.startswith("failed"):
                report(number, line)
        hung = process.poll() is None
        time.sleep(0.1)
        hung = hung and process.poll() is None
        process.kill()
        status = process.wait()
        if open_case:
            counts["failed"] += 1
            report(number, "hung" if hung else f"ended with status {status}")
        first = number + 1
    print(f"fuzz: {dict(counts)}", flush=True)
    return counts["failed"]


def report(number, what):
    """Print a failure, and keep its file."""
    name, data = damaged(number)
    KEPT.mkdir(parents=True, exist_ok=True)
    (KEPT / f"{number}-{name}").write_bytes(data)
    print(f"fuzz: case {number} ({name}): {what}\n      python tests/keyed/fuzz.py --case {number}", flush=True)


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument(
        "--first", type=int, default=time.time_ns() // 1000 % 10**12, help="the number of the first case"
    )
    parser.add_argument("--case", type=int, help="run one case")
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.case is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(check(World(), words.case, Path(folder)))
    elif words.work is not None:
        work(words.work, words.seconds)
    else:
        sys.exit(min(1, supervise(words.first, words.seconds)))


if __name__ == "__main__":
    main()
