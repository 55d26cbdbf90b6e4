"""Count the visits of each user and of each day: python examples/visits.py FOLDER [RANKS]

Writes the log of a web site with 20 users, FOLDER/log.csv, and groups it twice with anyrank run groupby.
"""

import csv
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np

from anyrank.numerics.random import Philox

VISITS = 100_000
DAYS = 30
BEGIN = datetime(2025, 3, 1, tzinfo=timezone.utc)
GROUPINGS = {"users": "user", "days": "date(time)"}


def write_log(path: Path) -> None:
    """Write the log: user, time and seconds of stay per visit. User k makes about 2k − 1 times as many as user 1."""
    visit = np.arange(VISITS)
    users = np.sqrt(Philox(20, 0).uniform(visit, high=20.0**2)).astype(int) + 1
    seconds = Philox(20, 1).uniform(visit, high=DAYS * 86_400).astype(int)
    stays = Philox(20, 2).uniform(visit, high=600.0).round(1)
    with path.open("w", newline="") as file:
        log = csv.writer(file, lineterminator="\n")
        log.writerow(("user", "time", "stay"))
        for user, second, stay in zip(users.tolist(), seconds.tolist(), stays.tolist(), strict=True):
            time = (BEGIN + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%SZ")
            log.writerow((f"user{user:02d}", time, stay))


def main(folder: Path, ranks: str = "2") -> int:
    """Write the log, group it by user and by day, and print the groups; return 0, or the status of a failed run."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.csv"
    write_log(log)
    for name, key in GROUPINGS.items():
        out = folder / name
        options = ("--table", log, "--by", key, "--aggregate", "count,mean(stay)", "--out", out, "--quiet")
        done = subprocess.run([sys.executable, "-m", "anyrank", "run", "groupby", "-n", ranks, *map(str, options)])
        if done.returncode:
            return done.returncode
        print((out / "groups.csv").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
