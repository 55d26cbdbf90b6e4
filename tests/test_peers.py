"""benchmarks/peers: the installed peers give our answers, and the tables show the measured values."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
FOLDER = BENCHMARKS / "peers"


@pytest.fixture(autouse=True)
def _peers(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


def compare_peers(out: Path, cores: int, rounds: int, *names: str) -> dict:
    command = [sys.executable, str(FOLDER / "compare.py"), "--quick", "--rounds", str(rounds), "--cores", str(cores)]
    done = subprocess.run(
        [*command, "--out", str(out), "--only", *names], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("peers-*.json")
    assert path.with_suffix(".md").read_text() in done.stdout
    return json.loads(path.read_text())


def test_peers_on_one_core_give_our_answers(tmp_path):
    files = {"jax": "weather_jax", "dask": "pi_dask", "polars": "sort_polars", "duckdb": "wordcount_duckdb"}
    absent = [name for name in files if find_spec(name) is None]
    names = ("pi_numpy", "weather_numpy", "weather_numba", "sum_fsum", "sum_numpy", "wordcount_counter", "sort_avx2")
    result = compare_peers(tmp_path, 1, 2, *names, *(files[name] for name in absent))
    rows = {row["peer"]: row for row in result["rows"] if row["job"] != "pi"}
    assert {name: row["answers"] for name, row in rows.items() if row["job"] == "weather"} == {
        "NumPy": "same bits",
        "Numba, a pass per array": "same bits",
    }
    assert rows["math.fsum"]["answers"] == "same bits" and rows["np.sum (not exact)"]["agree"]
    assert rows["collections.Counter"]["answers"] == "all counts alike"
    assert rows["np.sort by AVX2, one core"]["answers"] == "same bits"
    assert len(result["rows"]) == 7 and all(row["agree"] for row in result["rows"])
    assert all(len(row["ours"]) == len(row["theirs"]) == 2 for row in result["rows"])
    reasons = [entry["reason"] for entry in result["skipped"]]
    assert sorted(reasons) == sorted(f"No module named {name!r}" for name in absent)


def test_peers_on_two_cores_give_our_answers(tmp_path):
    result = compare_peers(tmp_path, 2, 1, "checkpoint_gather", "sort_numpy", "groupby_arrow")
    assert [(row["job"], row["measure"], row["answers"]) for row in result["rows"][:3]] == [
        ("checkpoint", "until on the disk", "same bits"),
        ("checkpoint", "steps held up", "same bits"),
        ("sort", "", "same bits"),
    ]
    assert result["rows"][3]["job"] == "groupby" and result["rows"][3]["answers"].startswith("sums off by ")
    held, durable = result["rows"][1]["ours"], result["rows"][0]["ours"]
    assert all(0 < a[0] < b[0] for a, b in zip(held, durable, strict=True))


def row(**changes: object) -> dict:
    return {
        "job": "pi", "size": {"points": 1_000_000}, "cores": 1, "measure": "", "peer": "X", "share": 1.0,
        "ours": [[0.001, 0.003], [0.001], [0.004]], "theirs": [[0.02], [0.02], [0.06]], "goal": 8.0,
        "agree": True, "answers": "π within 1 σ", "behind": "it is quick",
    } | changes  # fmt: skip


def test_peers_table_has_ratios_goals_and_reasons():
    table = import_module("table")
    rows = [
        row(),
        row(goal=20.0),
        row(share=0.1, peer="Y", goal=1.0),
        row(agree=False, answers="DIFFER: π is off", goal=1.0, behind=""),
    ]
    lines = table.table({"rows": rows, "skipped": [{"peer": "Z", "reason": "No module named 'z'"}]})
    start, speeds = "| π, 1,000,000 points | 1 |", "50 M points/s | 500 M points/s"
    assert lines == [
        *table.HEAD,
        f"{start} X | {speeds} | 15 (10 to 20) | ≥ 8 | yes | π within 1 σ |",
        f"{start} X | {speeds} | 15 (10 to 20) | ≥ 20 | NO (1) | π within 1 σ |",
        f"{start} Y | 5 M points/s | 500 M points/s | 150 (100 to 200) | ahead | yes | π within 1 σ |",
        f"{start} X | {speeds} | 15 (10 to 20) | ahead | NO | DIFFER: π is off |",
        "",
        "(1) it is quick.",
        "",
        "Not measured: Z (No module named 'z').",
    ]


def test_peers_readme_has_the_table_of_the_newest_results(tmp_path):
    table = import_module("table")
    copy = tmp_path / "README.md"
    shutil.copy(BENCHMARKS / "README.md", copy)
    table.write_readme(copy)
    assert copy.read_text() == (BENCHMARKS / "README.md").read_text(), "compare.py --table writes it"


def test_peers_wrong_answers_are_found():
    tasks, peer = import_module("tasks"), import_module("peer").Peer
    fair = {"hits": np.array(785_398)}
    assert tasks.check_pi(peer, {"points": 1_000_000}, fair, fair) == "π within 1 σ"
    with pytest.raises(tasks.DifferError, match=r"off by 9\.\d standard errors"):
        tasks.check_pi(peer, {"points": 1_000_000}, fair, {"hits": np.array(781_500)})
    ours, theirs = {"p": np.array([1.0, 2.0])}, {"p": np.array([1.0, np.nextafter(2.0, 3.0)])}
    with pytest.raises(tasks.DifferError, match=r"off by 2\.2e-16 of the largest"):
        tasks.check_values(peer, {}, ours, theirs)
    near = type("Near", (peer,), {"tolerance": 1e-15})
    assert tasks.check_values(near, {}, ours, theirs) == "off by 2e-16"
    with pytest.raises(tasks.DifferError, match="off by nan"):
        tasks.check_values(near, {}, ours, {"p": np.array([1.0, np.nan])})
    with pytest.raises(tasks.DifferError, match=r"\['u'\] instead of \['p'\]"):
        tasks.check_values(near, {}, ours, {"u": ours["p"]})


def test_peers_wrong_counts_and_groups_are_found():
    tasks, peer = import_module("tasks"), import_module("peer").Peer
    words = tasks.word_answer([b"a", b"b"], [3, 1])
    assert tasks.check_counts(peer, {}, words, tasks.word_answer([b"a", b"b"], [3, 1])) == "all counts alike"
    with pytest.raises(tasks.DifferError, match=r"first: \[b'a' b'c'\], ours \[b'a' b'b'\]"):
        tasks.check_counts(peer, {}, words, tasks.word_answer([b"a", b"c"], [3, 1]))
    size = {"rows": 1000, "groups": 7}
    ours = tasks.group_by_numpy(*tasks.table_of(size))
    assert tasks.check_groups(peer, size, ours, dict(ours)) == "same bits" and ours["groups"] == 7
    with pytest.raises(tasks.DifferError, match=r"a sum or mean has a relative error of \d\.\de-16"):
        tasks.check_groups(peer, size, ours, ours | {"sum": np.nextafter(ours["sum"], np.inf)})
    with pytest.raises(tasks.DifferError, match="count differs"):
        tasks.check_groups(peer, size, ours, ours | {"count": ours["count"] + 1})


def test_peers_share_of_the_rows_is_compared_with_numpys():
    tasks, peer = import_module("tasks"), import_module("peer").Peer
    half, size = type("Half", (peer,), {"share": 0.5}), {"rows": 1000, "groups": 7}
    ours, theirs = (tasks.group_by_numpy(*tasks.table_of(size, share)) for share in (1.0, 0.5))
    assert tasks.check_groups(half, size, ours, theirs) == "same bits"
    with pytest.raises(tasks.DifferError, match="rows differs"):
        tasks.check_groups(half, size, ours, ours)


def test_peers_text_has_its_length_and_is_reproducible(tmp_path):
    tasks = import_module("tasks")
    tasks.write_text({"bytes": 100_000}, tmp_path)
    text = (tmp_path / tasks.TEXT).read_bytes()
    counts = Counter(text.split())
    assert len(text) == 100_000 and 0.07 < counts.most_common(1)[0][1] / counts.total() < 0.09
    tasks.write_text({"bytes": 100_000}, tmp_path)
    assert (tmp_path / tasks.TEXT).read_bytes() == text


def test_peers_ours_restarts_for_each_peer_if_memory_is_short():
    compare, kinds = import_module("compare"), {"groupby_a": int, "groupby_anyrank": str, "groupby_b": float}
    assert compare._groups("groupby", kinds) == [
        {"groupby_anyrank": str, "groupby_a": int},
        {"groupby_anyrank": str, "groupby_b": float},
    ]
    assert compare._groups("sort", kinds | {"sort_anyrank": str}) == [kinds | {"sort_anyrank": str}]


def test_peers_failing_peer_gives_its_reason(tmp_path):
    process, peer = import_module("process"), import_module("peer").Peer
    with (
        process.PeerProcess("pi_nowhere", peer, {"points": 1}, 1, tmp_path) as entry,
        pytest.raises(process.PeerError, match="No module named 'pi_nowhere'"),
    ):
        entry.ready()


class Stub:
    """A peer process without a process: it returns its seconds, then fails; all stubs record their turns."""

    def __init__(self, name: str, seconds: list[float], turns: list[str]):
        self.name, self.seconds, self.turns = name, seconds, turns
        self.kind, self.process = SimpleNamespace(name=name.upper()), SimpleNamespace(pid=-id(self), poll=lambda: None)

    def ask(self, _line: str) -> dict:
        self.turns.append(self.name)
        if not self.seconds:
            raise import_module("process").PeerError("it fell over")
        return {"seconds": self.seconds.pop(0)}


def test_peers_pairs_alternate_and_a_failing_peer_is_dropped(tmp_path):
    turns: list[str] = []
    comparison = import_module("compare").Comparison(quick=True, rounds=3, folder=tmp_path)
    ours, good, bad = Stub("ours", [1.0] * 5, turns), Stub("good", [2.0] * 3, turns), Stub("bad", [3.0], turns)
    theirs = [good, bad]
    result = comparison._rounds(ours, theirs)
    assert turns == ["ours", "good", "ours", "bad", "good", "ours", "bad", "ours", "good"]
    assert result["good"] == [([{"seconds": 1.0}], [{"seconds": 2.0}])] * 3 and theirs == [good]
    assert comparison.skipped == [{"peer": "BAD", "reason": "it fell over"}]


def test_peers_environment_that_cannot_be_made_gives_its_reason(tmp_path):
    script = tmp_path / "make-it"
    script.write_text("#!/bin/sh\necho no mpicc: apt-get install mpich >&2\nexit 1\n")
    script.chmod(0o755)
    with pytest.raises(import_module("process").PeerError, match="no mpicc: apt-get install mpich"):
        import_module("compare")._make(str(tmp_path / "nowhere"), str(script), quick=False)


def test_peers_only_with_an_unknown_file_is_refused():
    command = [sys.executable, str(FOLDER / "compare.py"), "--quick", "--only", "weather_cobol"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "--only weather_cobol: no such job, and no such file" in done.stderr
