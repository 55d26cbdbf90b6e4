"""The network: its file, its arithmetic, and its measurement by `anyrank doctor`."""

from __future__ import annotations

import json
import sys

import pytest
from ranks import check_collective, mpiexec, run_anyrank

from anyrank.errors import UsageError
from anyrank.scaling.network import REDUCED, SIZES, Link, Network, Reduction, Spread, measure_here, message_rounds

HAND = {"links": {"network": {"L": 1e-6, "o": 2e-7, "g": 3e-7, "G": [1e-10, 5e-11, 2e-10]}}}


def exact_spread(value: float) -> Spread:
    return Spread(value, value, value)


def test_network_file_of_four_numbers_makes_a_link(tmp_path):
    (tmp_path / "net.json").write_text(json.dumps(HAND))
    link = Network.read(tmp_path / "net.json").links["network"]
    assert link.seconds(1) == pytest.approx(1.4e-6)
    assert link.seconds(1001) == pytest.approx(1.5e-6)
    assert link.seconds(1001, 1) == pytest.approx(1.45e-6) and link.seconds(1001, 2) == pytest.approx(1.6e-6)


def test_link_interpolates_sizes_and_extrapolates_by_bytes():
    halves = ((8, exact_spread(1.0)), (108, exact_spread(3.0)))
    link = Link(exact_spread(0.0), exact_spread(0.0), exact_spread(0.0), exact_spread(0.5), halves)
    assert [link.seconds(n) for n in (1, 8, 58, 108, 110)] == pytest.approx([1, 1, 2, 3, 4])


@pytest.mark.parametrize("ranks, messages", [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (9, 4), (131072, 17)])
def test_rounds_of_an_allreduce(ranks, messages):
    assert message_rounds(ranks) == messages


def test_network_round_is_the_median_or_that_of_a_message():
    link = Link(exact_spread(1.0), exact_spread(0.25), exact_spread(0.0), exact_spread(0.01))
    rows = [Reduction("network", ranks, 8, exact_spread(t)) for ranks, t in ((2, 2.0), (4, 6.0), (8, 12.0))]
    network = Network({"node": link, "network": link}, (*rows, Reduction("network", 2, 108, exact_spread(5.0))), {})
    assert network.round("network", 8) == 3.0
    assert network.round("network", 58) == 4.0 and network.round("network", 208) == 6.0
    assert network.round("node", 101) == 2.5


def test_network_file_is_read_as_written(tmp_path):
    link = Link(
        Spread(2.0, 1.0, 3.0), exact_spread(0.5), exact_spread(0.25), exact_spread(1e-9), ((8, Spread(3.0, 2.0, 4.0)),)
    )
    network = Network({"node": link}, (Reduction("node", 2, 8, exact_spread(4.0)),), {"ranks": 2})
    network.write(tmp_path / "net.json")
    assert Network.read(tmp_path / "net.json") == network


@pytest.mark.parametrize("text", [None, "L 3", "[]", "{}", '{"links": {"node": {"L": 1, "o": 1, "g": 1}}}'])
def test_network_bad_file_is_refused(tmp_path, text):
    path = tmp_path / "net.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=r"net\.json holds no measured network .* anyrank doctor --network --out"):
        Network.read(path)


@pytest.mark.ranks(2)
def test_measure_here_gives_the_link_of_two_ranks(world):
    result = measure_here(world)
    link = result.links["node"]
    check_collective(world, result == world.bcast(result), "the same on all ranks")
    check_collective(world, [n for n, _ in link.halves] == list(SIZES) and list(result.links) == ["node"])
    check_collective(world, all(0 < t.low <= t.median <= t.high for _, t in link.halves), "half round trips")
    check_collective(world, 0 < link.o.median < 1 and link.G.median > 0, f"{link}")
    check_collective(world, [(r.ranks, r.bytes) for r in result.reductions] == [(2, n) for n in REDUCED])


def test_doctor_network_starts_ranks_prints_and_writes(tmp_path):
    out = tmp_path / "net.json"
    done = run_anyrank("doctor", "--network", "--json", "--out", out, ranks=2)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(out.read_text())
    assert Network.read(out).about["ranks"] == 2


def test_doctor_network_unwritable_file_is_refused_once(tmp_path):
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
def test_doctor_network_bad_input_is_refused(refused, tmp_path, words, expected):
    done = refused("doctor", *words, cwd=tmp_path)
    assert done.returncode == 2 and expected in done.stderr
