"""The model against the clock: python benchmarks/scaling/namespaces.py [--quick].

Hosts are network namespaces with one rank each, joined by a switch in user space that has a set delay (tests/hosts.py,
tests/switch.py). On each delay the network is measured between two hosts and each program on 1 to 6, in rounds; the
model gets the network and the runs on 1 to 3 ranks, and predicts those on 4 to 6. Needs root, ip and /dev/net/tun.

Ranks that wait leave their cores (tests/polite.c), for there are fewer cores than hosts; `--impolite` shows what
happens without.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[1]
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS.parent / "tests")]

from hosts import Hosts, start_hosts  # noqa: E402
from measure import machine  # noqa: E402
from switch import Wires  # noqa: E402

from anyrank.runtime.programs import load  # noqa: E402
from anyrank.scaling.measured import PHASES, Study  # noqa: E402
from anyrank.scaling.model import Model  # noqa: E402
from anyrank.scaling.network import Network, measure  # noqa: E402
from anyrank.scaling.study import Plan, StudyFolder  # noqa: E402

HERE = Path(__file__).parent
ASLEEP = HERE / "asleep.py"
#: What is run on every number of ranks, and what the model sees of it.
RANKS, FITTED = (1, 2, 3, 4, 5, 6), (1, 2, 3)
#: Source and parameters of each program, and what it does in a step.
PROGRAMS: dict[str, tuple[str, dict[str, Any], str]] = {
    "heat": (str(BENCHMARKS.parent / "examples/heat.py"), {"n": 192}, "halos of one field, 37 000 points"),
    "weather": ("weather", {"rows": 192, "columns": 192}, "halos of three fields, 37 000 points"),
    "halos": (f"{ASLEEP}:Halos", {"row": 1e-4}, "sleep 1 ms + 12 ms / ranks, then halos"),
    "sums": (f"{ASLEEP}:Sums", {"row": 1e-4}, "sleep 1 ms + 12 ms / ranks, then an exact sum"),
}
#: About the seconds that the steps of a run are to take on the network; a step takes a few delays.
LASTING = 1.5


def studied(name: str, delay: float, hosts: Hosts, repeat: int, folder: Path) -> Study:
    """Return the study of a program on the hosts."""
    source, given, _ = PROGRAMS[name]
    program = load(source)
    steps = max(20, int(LASTING / (4 * delay + (0.004 if "asleep" in source else 0.001))))
    parameters = program(**given, steps=steps).parameters
    plan = Plan("strong", source, program.name, parameters, {"split": "rows"}, (), RANKS, repeat)
    study = StudyFolder(folder)
    study.create(plan)
    study.measure(plan, range(1, repeat + 1), 120.0, ",".join(hosts.addresses), print)
    return study.read()


def compared(name: str, delay: float, study: Study, network: Network) -> Iterator[str]:
    """Return rows of the table: what was measured, what the model says, and how far it is off."""
    model = Model.of(study, network, using=FITTED)
    for ranks in RANKS:
        samples, told = study.at(ranks), model.predict(ranks)
        seconds = [1e3 * one.seconds / one.steps for one in samples]
        phases = {one: statistics.median(1e3 * s.phases[one] / s.steps for s in samples) for one in PHASES}
        mid, said = statistics.median(seconds), 1e3 * told.seconds / model.steps
        parts = ", ".join(
            f"{one} {phases[one]:.2f}/{1e3 * told.phases[one] / model.steps:.2f}"
            for one in ("compute", "exchange", "reduce", "idle", "other")
        )
        mark = "fitted" if ranks in FITTED else f"**{100 * (said / mid - 1):+.1f} %**"
        yield (
            f"| {name} | {1e3 * delay:g} | {ranks} | {mid:.2f} ({min(seconds):.2f} to {max(seconds):.2f}) | {said:.2f} "
            f"({1e3 * told.low / model.steps:.2f} to {1e3 * told.high / model.steps:.2f}) | {mark} | {parts} |"
        )


def measured(hosts: Hosts, folder: Path) -> Network:
    """Measure the network between two of the hosts."""
    file = folder / "network.json"
    assert measure(file, 2, ",".join(hosts.addresses[:2])) == 0
    return Network.read(file)


def main() -> None:
    """Measure, predict, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round, one delay, nothing kept")
    parser.add_argument("--impolite", action="store_true", help="ranks wait busily, as MPICH does")
    parser.add_argument("--programs", default=",".join(PROGRAMS))
    parser.add_argument("--delays", default="1,3,10", help="ms one way")
    parser.add_argument("--repeat", type=int, default=3)
    asked = parser.parse_args()
    delays = [3.0] if asked.quick else [float(ms) for ms in asked.delays.split(",")]
    lines: list[str] = []
    networks: list[str] = []
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        with start_hosts(max(RANKS), folder, Wires(), polite=not asked.impolite) as hosts:
            os.environ.update(hosts.environment)
            for delay in delays:
                hosts.set(Wires(delay / 1e3))
                network = measured(hosts, folder)
                link = network.links["network"]
                rounds = ", ".join(f"{n} B {1e3 * network.round('network', n):.2f}" for n in (8, 64, 1024))
                networks.append(
                    f"Delay {delay:g} ms: L {1e3 * link.L.median:.2f} ms, o {1e6 * link.o.median:.1f} µs, "
                    f"g {1e6 * link.g.median:.1f} µs, 1/G {1e-6 / link.G.median:.0f} MB/s; "
                    f"a round of an all-reduce of {rounds} ms."
                )
                for name in asked.programs.split(","):
                    at = folder / f"{name}-{delay:g}"
                    study = studied(name, delay / 1e3, hosts, 1 if asked.quick else asked.repeat, at)
                    lines += compared(name, delay / 1e3, study, network)
                    print("\n".join([networks[-1], *lines[-len(RANKS) :]]), flush=True)
    now = datetime.now(timezone.utc)
    what = [f"- `{name}`: {PROGRAMS[name][2]}" for name in asked.programs.split(",")]
    words = " ".join(["python benchmarks/scaling/namespaces.py", *sys.argv[1:]])
    table = [
        f"`{words}`, {now:%Y-%m-%d %H:%M} UTC, on {machine()}.\n",
        *what,
        "",
        *(f"- {line}" for line in networks),
        "",
        "| program | delay, ms | ranks | measured, ms a step: median (span) | model (low to high) | error | "
        "phases in ms, measured/model |",
        "|---|---|---|---|---|---|---|",
        *lines,
    ]
    print("\n".join(table))
    if not asked.quick:
        stem = "model-impolite" if asked.impolite else "model"
        (BENCHMARKS / "results" / f"{stem}-{now:%Y-%m-%d}.md").write_text("\n".join(table) + "\n")


if __name__ == "__main__":
    main()
