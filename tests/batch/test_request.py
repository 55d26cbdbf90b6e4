"""What a job requests, and sites: layers, defaults, and what is refused before any work."""

from __future__ import annotations

import pytest

from anyrank.batch.request import request
from anyrank.batch.site import Site, load_site
from anyrank.errors import UsageError


def test_request_flags_override_study_and_study_overrides_site():
    site = Site(scheduler="slurm", partition="big", account="p1", cores_per_node=64)
    asked = request(site, {"partition": "small", "nodes": 3}, {}, {"nodes": 2, "account": None})
    assert (asked.on, asked.partition, asked.account, asked.nodes) == ("slurm", "small", "p1", 2)
    assert (asked.slots, asked.size, asked.cores) == (64, 128, 64), "a rank for every core of the site"
    assert request(site, {"threads": 16}).slots == 4


@pytest.mark.parametrize(
    ("given", "slots", "size"),
    [
        ({}, 1, 1),
        ({"nodes": 2, "ranks_per_node": 3}, 3, 6),
        ({"nodes": 2, "ranks": 5}, 3, 5),
        ({"ranks": 7}, 7, 7),
        ({"nodes": 2, "ranks": 5, "ranks_per_node": 4}, 4, 5),
    ],
)
def test_request_ranks_and_nodes_give_slots_and_size(given, slots, size):
    asked = request(Site(), given)
    assert (asked.slots, asked.size) == (slots, size)


@pytest.mark.parametrize(
    ("walltime", "clock", "warning"),
    [("90s", "00:01:30", 22), ("10min", "00:10:00", 120), ("1-02:00", "26:00:00", 120), ("2:00:00", "02:00:00", 120)],
)
def test_request_wall_time_gives_clock_and_warning(walltime, clock, warning):
    asked = request(Site(), {"walltime": walltime})
    assert (asked.clock, asked.warning_seconds) == (clock, warning)


BAD_REQUESTS = {
    "no wall time": ({"walltime": "soon"}, "submit: walltime = 'soon' is not a duration"),
    "no nodes": ({"nodes": 0}, "submit: nodes = 0 must be at least 1"),
    "words for nodes": ({"nodes": "two"}, "submit: nodes = 'two' must be a whole number"),
    "an unknown key": ({"ndoes": 2}, "ndoes = 2 is not known here"),
    "more ranks than the nodes have room for": (
        {"nodes": 2, "ranks_per_node": 4, "ranks": 9},
        "--ranks 9 is more than 2 nodes with 4 ranks each can hold. Use --nodes 3, or --ranks 8.",
    ),
    "more ranks than cores": (
        {"nodes": 2, "ranks_per_node": 9},
        "9 ranks per node with 1 threads each need more than the 8 cores of a node here. "
        "Use --nodes 3 --ranks-per-node 8.",
    ),
    "more threads than cores": (
        {"threads": 3, "ranks_per_node": 4},
        "4 ranks per node with 3 threads each need more than",
    ),
    "more GPUs than there are": ({"gpus_per_node": 3}, "--gpus-per-node 3 is more than the 2 of a node here"),
    "a warning that is too early": ({"walltime": "1min", "warning": "60s"}, "--warning 60s must be less than"),
    "two environments": ({"image": "a.sif", "pack": "b.tar"}, "are two environments. Use one of them."),
    "a line in a partition": ({"partition": "big\n#SBATCH --uid=0"}, "partition = "),
    "a space in an account": ({"account": "p1 --uid=0"}, "account = "),
    "memory of no size": ({"memory": "much"}, "memory = 'much' must be a size such as 16G"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_request_bad_values_are_refused(case):
    given, message = BAD_REQUESTS[case]
    with pytest.raises(UsageError) as refusal:
        asked = request(Site(cores_per_node=8, gpus_per_node=2), given)
        _ = asked.seconds
    assert message in str(refusal.value)


@pytest.fixture
def sites(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "anyrank" / "sites"
    folder.mkdir(parents=True)
    return folder


def test_load_site_without_a_name_reads_the_default(sites):
    assert load_site("") == Site()
    (sites / "default.toml").write_text('scheduler = "pbs"\nmodules = ["gcc/12"]\n[environment]\nA = "b c"\n')
    assert load_site("").scheduler == "pbs" and load_site("").environment == {"A": "b c"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "--site 'big' is unknown"),
        ("nodes =", "cannot be read"),
        ("schedular = 'slurm'", "schedular = 'slurm' is not known here. Did you mean scheduler?"),
        ("cores_per_node = 0", "cores_per_node = 0 must be at least 1"),
        ('partition = "a b"', "partition = 'a b' must be one word"),
        ('setup = ["a\\nb"]', "setup.0 = 'a\\nb' must be one line"),
        ('[environment]\n"A B" = "c"', "A B"),
    ],
)
def test_load_site_bad_file_is_refused(sites, text, message):
    (sites / "default.toml").write_text("")
    if text is not None:
        (sites / "big.toml").write_text(text)
    with pytest.raises(UsageError) as refusal:
        load_site("big")
    assert message in str(refusal.value)


def test_load_site_path_as_a_name_is_refused(sites):
    (sites.parent / "other.toml").write_text("")
    with pytest.raises(UsageError, match="unknown"):
        load_site("../other")
