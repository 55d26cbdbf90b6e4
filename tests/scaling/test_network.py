"""The network: what a file of it says, how its parts are computed with, and that `anyrank doctor` measures it."""

from __future__ import annotations

import json
import sys

import pytest
from ranks import check_collective, mpiexec, run_anyrank

from anyrank.errors import UsageError
from anyrank.scaling.network import REDUCED, SIZES, Link, Network, Reduction, Spread, measure_here, rounds

HAND = {"links": {"network": {"L": 1e-6, "o": 2e-7, "g": 3e-7, "G": [1e-10, 5e-11, 2e-10]}}}


def exactly(value: float) -> Spread:
    return Spread(value, value, value)


def test_four_numbers_make_a_link(tmp_path):
    (tmp_path / "net.json").write_text(json.dumps(HAND))
    link = Network.read(tmp_path / "net.json").links["network"]
    assert link.seconds(1) == pytest.approx(1.4e-6)
    assert link.seconds(1001) == pytest.approx(1.5e-6)
    assert link.seconds(1001, 1) == pytest.approx(1.45e-6) and link.seconds(1001, 2) == pytest.approx(1.6e-6)


def test_between_measured_sizes_is_what_lies_between_and_beyond_them_bytes_count():
    halves = ((8, exactly(1.0)), (108, exactly(3.0)))
    link = Link(exactly(0.0), exactly(0.0), exactly(0.0), exactly(0.5), halves)
    assert [link.seconds(n) for n in (1, 8, 58, 108, 110)] == pytest.approx([1, 1, 2, 3, 4])


@pytest.mark.parametrize("ranks, messages", [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (9, 4), (131072, 17)])
def test_rounds_of_an_all_reduce(ranks, messages):
    assert rounds(ranks) == messages


def test_a_round_is_the_typical_one_of_those_measured_and_a_message_where_none_is():
    link = Link(exactly(1.0), exactly(0.25), exactly(0.0), exactly(0.01))
    rows = [Reduction("network", ranks, 8, exactly(t)) for ranks, t in ((2, 2.0), (4, 6.0), (8, 12.0))]
    network = Network({"node": link, "network": link}, (*rows, Reduction("network", 2, 108, exactly(5.0))), {})
    assert network.round("network", 8) == 3.0
    assert network.round("network", 58) == 4.0 and network.round("network", 208) == 6.0
    assert network.round("node", 101) == 2.5


def test_a_file_gives_back_what_was_written(tmp_path):
    link = Link(Spread(2.0, 1.0, 3.0), exactly(0.5), exactly(0.25), exactly(1e-9), ((8, Spread(3.0, 2.0, 4.0)),))
    network = Network({"node": link}, (Reduction("node", 2, 8, exactly(4.0)),), {"ranks": 2})
    network.write(tmp_path / "net.json")
    assert Network.read(tmp_path / "net.json") == network


@pytest.mark.parametrize("text", [None, "L 3", "[]", "{}", '{"links": {"node": {"L": 1, "o": 1, "g": 1}}}'])
def test_a_file_that_is_no_network_is_refused(tmp_path, text):
    path = tmp_path / "net.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=r"net\.json holds no measured network .* anyrank doctor --network --out"):
        Network.read(path)


@pytest.mark.ranks(2)
def test_ranks_measure_their_link(world):
    found = measure_here(world)
    link = found.links["node"]
    check_collective(world, found == world.bcast(found), "the same on all ranks")
    check_collective(world, [n for n, _ in link.halves] == list(SIZES) and list(found.links) == ["node"])
    check_collective(world, all(0 < t.low <= t.median <= t.high for _, t in link.halves), "half round trips")
    check_collective(world, 0 < link.o.median < 1 and link.G.median > 0, f"{link}")
    check_collective(world, [(r.ranks, r.bytes) for r in found.reductions] == [(2, n) for n in REDUCED])


def test_doctor_starts_ranks_prints_and_writes(tmp_path):
    out = tmp_path / "net.json"
    done = run_anyrank("doctor", "--network", "--json", "--out", out, ranks=2)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(out.read_text())
    assert Network.read(out).about["ranks"] == 2


def test_doctor_under_a_launcher_refuses_a_file_that_cannot_be_written_once(tmp_path):
    done = mpiexec(2, sys.executable, "-m", "anyrank", "doctor", "--network", "--out", tmp_path / "no" / "net.json")
    assert done.returncode == 2
    assert done.stderr.count("net.json cannot be written (No such file or directory)") == 1


@pytest.mark.parametrize(
    "words, expected",
    [
        (("--network", "-n", 1), "--network -n 1: it needs at least 2 ranks"),
        (("--network", "-n", 0), "--network -n 0: it needs at least 2 ranks"),
        (("--network", "-n", 3, "--hosts", "a:1,b:1"), "-n 3 is more than the 2 slots"),
        (("-n", 2), "-n 2 is only for --network"),
        (("--out", "x.json"), "--out x.json is only for --network"),
    ],
)
def test_doctor_refuses(refused, tmp_path, words, expected):
    done = refused("doctor", *words, cwd=tmp_path)
    assert done.returncode == 2 and expected in done.stderr
