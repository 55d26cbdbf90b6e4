"""`anyrank doctor`: show the properties of this machine, and the speed of every body of every kernel."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from anyrank import launcher
from anyrank.device import open_device
from anyrank.device.select import gpu_missing, gpus_here
from anyrank.errors import AnyrankError, UsageError
from anyrank.kernel import FILES, Kernel, installed_kernels
from anyrank.kernels import Declined
from anyrank.observe.progress import si

#: Seconds for timing one body, after the call that compiles it.
TIMING_SECONDS = 0.3


@click.command(name="doctor")
@click.option(
    "--size",
    type=click.IntRange(min=16),
    default=1_000_000,
    show_default=True,
    help="Number of elements for each kernel.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--no-kernels", is_flag=True, help="Do not time kernels.")
@click.option("--network", is_flag=True, help="Measure only the network: messages and all-reduces between ranks.")
@click.option("-n", "--ranks", type=int, help="With --network: the number of ranks.  [default: 2]")
@click.option("--hosts", default="", help="With --network: the hosts of the ranks, such as node1:1,node2:1.")
@click.option("--out", help="With --network: the output file, for `anyrank scale --network`.")
def command(
    size: int, as_json: bool, no_kernels: bool, network: bool, ranks: int | None, hosts: str, out: str | None
) -> int:
    """Show what a run finds on this machine (versions, MPI, GPUs), and time the kernels or the network."""
    if network:
        return measure_network(ranks, hosts, Path(out) if out else None, as_json)
    for flag, value in (("-n", ranks), ("--hosts", hosts), ("--out", out)):
        if value:
            raise UsageError(f"{flag} {value} is only for --network. Add --network, or omit the option.")
    properties = machine()
    timings: list[dict[str, Any]] = []
    if not as_json:
        for name, value in properties.items():
            if isinstance(value, dict):
                value = "".join(f"\n    {key}={text}" for key, text in value.items())
            click.echo(f"{name:<18} {value}")
        click.echo(f"\n{'kernel':<28} {'body':<10} {'rate':>14}")
    for row in [] if no_kernels else time_bodies(size):
        timings.append(row)
        if not as_json:
            rate = f"{si(row['rate'])}{row['unit']}/s" if row["rate"] else f"declined: {row['declined']}"
            click.echo(f"{row['kernel']:<28} {row['body']:<10} {rate:>14}")
    if as_json:
        click.echo(json.dumps({**properties, "kernels": timings}, indent=2))
    return 0


def measure_network(ranks: int | None, hosts: str, out: Path | None, as_json: bool) -> int:
    """Start ranks that measure the network, or measure as one of them; return the exit code.

    Collective in the ranks. Rank 0 prints the result and writes it to `out`.
    """
    started = launcher.tasks() if launcher.tasks() > 1 else 0
    count = started or ranks or 2
    if count < 2 or ranks not in (None, count):
        given = f"-n {count if ranks is None else ranks}"
        launched = f" but the launcher started {started}" if started else ""
        raise UsageError(f"--network {given}{launched}: it needs at least 2 ranks. Use -n 2 or more.")
    from anyrank.scaling.network import as_text, measure, measure_here

    if not started:
        return measure(out, count, hosts, *["--json"] * as_json)
    from anyrank.world import World, check_launch

    world = World()
    check_launch(world)
    world.on_root(lambda: _check_writable(out))
    network = measure_here(world)
    if world.rank == 0:
        click.echo(json.dumps(asdict(network)) if as_json else as_text(network))
        if out is not None:
            network.write(out)
    return 0


def _check_writable(out: Path | None) -> None:
    """Raise UsageError if the file cannot be written."""
    try:
        if out is not None:
            out.open("a", encoding="utf-8").close()
    except OSError as error:
        why = error.strerror
        raise UsageError(f"--out {out} cannot be written ({why}). Fix that, or use another --out.") from None


def machine() -> dict[str, Any]:
    """Return the provenance of a run's process, and the mpiexec, memory and GPUs of this machine."""
    from anyrank.provenance import clocks, here
    from anyrank.runtime.launch import mpiexec

    try:
        launcher = " ".join(mpiexec())
    except AnyrankError as error:
        launcher = str(error)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"mpiexec": launcher, "memory": f"{memory:.1f} GiB", **here(), "gpu": gpus_here(), **clocks()}


def time_bodies(size: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each kernel and body: its rate on an example of about `size` elements, or why it declined."""
    bodies = [name for name in FILES if name != "cupy" or not gpu_missing()]
    for kernel in installed_kernels():
        for body in bodies:
            row = {"kernel": kernel.name, "body": body, "rate": 0.0, "unit": "", "declined": ""}
            try:
                row["rate"], row["unit"] = time_body(kernel, body, size if body != "shim" else min(size, 4096))
            except (Declined, AnyrankError) as error:
                row["declined"] = str(error)
            yield row


def time_body(kernel: Kernel, body: str, size: int) -> tuple[float, str]:
    """Return the best rate of a body over a few calls, and its unit; raises Declined if it cannot be used."""
    import importlib

    package = importlib.import_module(f"anyrank.kernels.{kernel.folder}")
    device = open_device(body)
    function = kernel.load(body, device)
    arguments, amount, unit = package.example(kernel.operation, size)
    on_host = [arguments[position % len(arguments)] for position in getattr(package, "ON_HOST", ())]
    copied = [hasattr(a, "dtype") and a.ndim and not any(a is b for b in on_host) for a in arguments]
    arguments = [device.from_host(a) if copy else a for a, copy in zip(arguments, copied, strict=True)]
    function(*arguments)
    device.synchronize()
    best, end = float("inf"), time.perf_counter() + TIMING_SECONDS
    while time.perf_counter() < end:
        before = time.perf_counter()
        function(*arguments)
        device.synchronize()
        best = min(best, time.perf_counter() - before)
    return amount / best, unit
