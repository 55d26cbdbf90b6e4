"""Compare the performance model with measurements: python benchmarks/scaling/namespaces.py [--quick].

The hosts are network namespaces with one rank each, connected by a switch in user space with a given delay
(tests/hosts.py, tests/switch.py). For each delay, the network is measured between two hosts, and each program on 1 to 6
hosts, in rounds. The model is fitted to the network and to the runs on 1 to 3 ranks, and predicts those on 4 to 6.
Needs root, ip and /dev/net/tun.

There are fewer cores than hosts, so ranks that wait release their cores (tests/polite.c). `--impolite` shows the result
without that.
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
from anyrank.scaling.measured import PHASES, ScalingStudy  # noqa: E402
from anyrank.scaling.model import Model  # noqa: E402
from anyrank.scaling.network import Network, measure  # noqa: E402
from anyrank.scaling.study_folder import Plan, StudyFolder  # noqa: E402

HERE = Path(__file__).parent
ASLEEP = HERE / "asleep.py"
#: The numbers of ranks to run, and those to which the model is fitted.
RANKS, FITTED = (1, 2, 3, 4, 5, 6), (1, 2, 3)
#: For each program: source, parameters, and a description of a step.
PROGRAMS: dict[str, tuple[str, dict[str, Any], str]] = {
    "heat": (str(BENCHMARKS.parent / "examples/heat.py"), {"n": 192}, "halos of one field, 37 000 points"),
    "weather": ("weather", {"rows": 192, "columns": 192}, "halos of three fields, 37 000 points"),
    "halos": (f"{ASLEEP}:Halos", {"row": 1e-4}, "sleep 1 ms + 12 ms / ranks, then halos"),
    "sums": (f"{ASLEEP}:Sums", {"row": 1e-4}, "sleep 1 ms + 12 ms / ranks, then an exact sum"),
}
#: Approximate seconds for the steps of a run; a step takes a few delays.
TARGET_SECONDS = 1.5


def run_study(name: str, delay: float, hosts: Hosts, repeat: int, folder: Path) -> ScalingStudy:
    """Run the scaling study of a program on the hosts."""
    source, given, _ = PROGRAMS[name]
    program = load(source)
    steps = max(20, int(TARGET_SECONDS / (4 * delay + (0.004 if "asleep" in source else 0.001))))
    parameters = program(**given, steps=steps).parameters
    plan = Plan("strong", source, program.name, parameters, {"split": "rows"}, (), RANKS, repeat)
    study = StudyFolder(folder)
    study.create(plan)
    study.measure(plan, range(1, repeat + 1), 120.0, ",".join(hosts.addresses), print)
    return study.read()


def table_rows(name: str, delay: float, study: ScalingStudy, network: Network) -> Iterator[str]:
    """Yield the rows of the table: the measurement, the prediction, and its error."""
    model = Model.of(study, network, using=FITTED)
    for ranks in RANKS:
        samples, prediction = study.at(ranks), model.predict(ranks)
        step_times = [1e3 * one.seconds / one.steps for one in samples]
        phases = {one: statistics.median(1e3 * s.phases[one] / s.steps for s in samples) for one in PHASES}
        median, predicted = statistics.median(step_times), 1e3 * prediction.seconds / model.steps
        parts = ", ".join(
            f"{one} {phases[one]:.2f}/{1e3 * prediction.phases[one] / model.steps:.2f}"
            for one in ("compute", "exchange", "reduce", "idle", "other")
        )
        mark = "fitted" if ranks in FITTED else f"**{100 * (predicted / median - 1):+.1f} %**"
        low, high = (1e3 * value / model.steps for value in (prediction.low, prediction.high))
        yield (
            f"| {name} | {1e3 * delay:g} | {ranks} | {median:.2f} ({min(step_times):.2f} to {max(step_times):.2f}) "
            f"| {predicted:.2f} ({low:.2f} to {high:.2f}) "
            f"| {mark} | {parts} |"
        )


def measure_network(hosts: Hosts, folder: Path) -> Network:
    """Measure the network between two of the hosts."""
    file = folder / "network.json"
    assert measure(file, 2, ",".join(hosts.addresses[:2])) == 0
    return Network.read(file)


def main() -> None:
    """Measure, predict, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round and one delay, as a test; write no results")
    parser.add_argument("--impolite", action="store_true", help="ranks wait in a busy loop, as MPICH does")
    parser.add_argument("--programs", default=",".join(PROGRAMS))
    parser.add_argument("--delays", default="1,3,10", help="one-way delays in ms")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    delays = [3.0] if options.quick else [float(ms) for ms in options.delays.split(",")]
    lines: list[str] = []
    networks: list[str] = []
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        with start_hosts(max(RANKS), folder, Wires(), polite=not options.impolite) as hosts:
            os.environ.update(hosts.environment)
            for delay in delays:
                hosts.set(Wires(delay / 1e3))
                network = measure_network(hosts, folder)
                link = network.links["network"]
                rounds = ", ".join(f"{n} B {1e3 * network.round('network', n):.2f}" for n in (8, 64, 1024))
                networks.append(
                    f"Delay {delay:g} ms: L {1e3 * link.L.median:.2f} ms, o {1e6 * link.o.median:.1f} µs, "
                    f"g {1e6 * link.g.median:.1f} µs, 1/G {1e-6 / link.G.median:.0f} MB/s; "
                    f"a round of an all-reduce of {rounds} ms."
                )
                for name in options.programs.split(","):
                    at = folder / f"{name}-{delay:g}"
                    study = run_study(name, delay / 1e3, hosts, 1 if options.quick else options.repeat, at)
                    lines += table_rows(name, delay / 1e3, study, network)
                    print("\n".join([networks[-1], *lines[-len(RANKS) :]]), flush=True)
    now = datetime.now(timezone.utc)
    what = [f"- `{name}`: {PROGRAMS[name][2]}" for name in options.programs.split(",")]
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
    if not options.quick:
        stem = "model-impolite" if options.impolite else "model"
        (BENCHMARKS / "results" / f"{stem}-{now:%Y-%m-%d}.md").write_text("\n".join(table) + "\n")


if __name__ == "__main__":
    main()
