"""The report of an execution: summary.json, result.json, and the output at its end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anyrank.errors import as_ranges
from anyrank.kernel import BODIES
from anyrank.observe.progress import si
from anyrank.observe.timers import PHASES
from anyrank.program import Program
from anyrank.provenance import provenance
from anyrank.runtime.folder import RunFolder
from anyrank.runtime.loop import Loop
from anyrank.runtime.memory import memory_usage
from anyrank.runtime.options import Options
from anyrank.runtime.prepare import Prepared
from anyrank.runtime.stops import NONE, describe
from anyrank.world import World


@dataclass(frozen=True)
class ExecutedSteps:
    """The steps of one execution: its first step, its checkpoint (None: it began with setup), and why it ended."""

    first: int
    resumed_from: int | None
    reason: int

    @property
    def finished(self) -> bool:
        """Whether the run is complete."""
        return self.reason == NONE


def summarize(program: Program, prepared: Prepared, loop: Loop, span: ExecutedSteps, command: str) -> dict[str, Any]:
    """Return the content of summary.json. Collective."""
    saved, state = loop.saved, prepared.state
    assert saved is not None, "the loop ends with a checkpoint"
    world = state.world
    amount, unit = program.work()
    return {
        "program": program.name,
        "parameters": program.parameters,
        "ranks": world.size,
        "bodies": _bodies(world),
        "transfer": world.transfer,
        "steps": state.step,
        "digest": f"{saved.digest:016x}",
        "digests": {name: f"{value:016x}" for name, value in saved.digests.items()},
        "seconds": round(loop.seconds, 6),
        "rate": {"value": (state.step - span.first) * amount / max(loop.seconds, 1e-9), "unit": f"{unit}/s"},
        "checkpoints": {"blocked_seconds": round(loop.blocked, 6), "last_hidden": round(saved.hidden, 4)},
        "memory": memory_usage(state),
        "timing": _timing(world, loop),
        "oversubscribed": not world.all(not prepared.oversubscribed),
        "nodes": world.sum(int(world.node_rank == 0)),
        "cores": world.sum(prepared.cores if world.node_rank == 0 else 0),
        "resumed_from": span.resumed_from,
        "lineage": loop.checkpoints.identity.lineage,
        "stopped_by": None if span.finished else describe(span.reason),
        "finished": span.finished,
        "provenance": provenance(world, command),
    }


def _timing(world: World, loop: Loop) -> dict[str, Any]:
    """Return the time of each phase in the slowest rank's steps, and the mean traffic of a step. Collective.

    The first step, which compiles kernels and touches new memory, is left out, unless it is the only one.
    """
    timers, seconds = loop.timers, loop.seconds - loop.warm_up
    *slowest, longest = world.allreduce(np.array([*timers.computed, seconds]), "max")
    phases = timers.phases(seconds, np.array(slowest), longest)
    local = [*phases.values(), *timers.traffic.values(), timers.noise]
    means = np.mean(np.array(world.comm.allgather(local)), axis=0).tolist()
    counted, traffic = max(1, timers.steps), means[len(PHASES) :]
    return {
        "steps": timers.steps,
        "seconds": float(longest),
        "warm_up": loop.warm_up,
        "phases": dict(zip(PHASES, means, strict=False)),
        "traffic": {name: n / counted for name, n in zip(timers.traffic, traffic, strict=False)},
        "noise": means[-1],
    }


def _bodies(world: World) -> dict[str, str]:
    """Return the body of every kernel that was used, and the ranks of each body if ranks differ. Collective."""
    local = {name: body.name for name, body in BODIES.chosen.items()}
    by_kernel: dict[str, dict[str, list[int]]] = {}
    for rank, bodies in enumerate(world.gather(local) or []):
        for kernel, body in bodies.items():
            by_kernel.setdefault(kernel, {}).setdefault(body, []).append(rank)
    return {
        kernel: next(iter(by)) if len(by) == 1 else ", ".join(f"{b} (ranks {as_ranges(r)})" for b, r in by.items())
        for kernel, by in sorted(by_kernel.items())
    }


def as_mapping(result: Any) -> dict[str, Any]:
    """Convert the value of a program's `result` to a mapping: None is empty, any other value is named `result`."""
    if result is None:
        return {}
    return {str(name): value for name, value in result.items()} if isinstance(result, Mapping) else {"result": result}


def write(folder: RunFolder, summary: dict[str, Any], result: dict[str, Any]) -> None:
    """Write result.json, if the run is finished, and summary.json. Only rank 0 calls it."""
    if summary["finished"]:
        folder.write_result(result)
    folder.write_summary(summary)


def ending(summary: dict[str, Any]) -> str:
    """Return how an execution ended, as text."""
    return "finished" if summary["finished"] else f"stopped by {summary['stopped_by']}"


def show(folder: Path, summary: dict[str, Any], result: dict[str, Any], picture: Path | None, options: Options) -> None:
    """Print the result and the summary. Only rank 0 calls it."""
    name, rate = summary["program"], summary["rate"]
    if not options.quiet:
        for key, value in result.items():
            print(f"{name}: {key} = {value}")
        print(
            f"{name}: {ending(summary)} at step {summary['steps']} on {summary['ranks']} rank(s) in "
            f"{summary['seconds']:.2f} s, {si(rate['value'])}{rate['unit']}, digest {summary['digest']}"
        )
        if picture is not None:
            print(f"{name}: picture {picture}")
        if not summary["finished"]:
            print(f"{name}: continue with: anyrank resume {folder}")
    if options.as_json:
        print(json.dumps(summary), flush=True)


def show_finished(name: str, folder: RunFolder, options: Options) -> bool:
    """Return whether the run in the folder is already finished; if so, print its summary."""
    summary = folder.finished()
    if summary is None:
        return False
    print(f"{name}: {folder.path} is finished: {summary['steps']} steps, digest {summary['digest']}.")
    if options.as_json:
        print(json.dumps(summary), flush=True)
    return True
