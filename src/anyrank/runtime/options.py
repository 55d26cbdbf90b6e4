"""The options of a run: everything that does not change its result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import AfterValidator

from anyrank.declaration import OptionSettings, option
from anyrank.kernel import FILES, check_bodies
from anyrank.layout import SPLITS
from anyrank.output.expressions import parse_frames
from anyrank.runtime.duration import Duration, MaybeDuration
from anyrank.values import Count, Natural, matching, seconds_of

#: The groups of options in `--help`.
RUN, BRANCH, CHECKPOINTS, OUTPUTS, STOPS = "Run", "Branch", "Checkpoints", "Outputs", "Stops and restarts"
PLACEMENT, DIAGNOSTICS = "Placement", "Diagnostics"
#: Where an option is refused: in jobs (it has no meaning there, or the request sets it), in scaling studies, and by
#: `anyrank resume`.
JOBS, STUDIES, RESUME = ("jobs",), ("studies",), ("resume",)
_OFF = ("0", "off")
_BYTES: pydantic.TypeAdapter[int] = pydantic.TypeAdapter(pydantic.ByteSize)


@dataclass(frozen=True)
class Interval:
    """When checkpoints are due: at an interval in steps or seconds, by Young's formula, or never."""

    steps: int = 0
    seconds: float = 0.0
    young: bool = False

    @classmethod
    def parse(cls, text: str) -> Interval:
        """Parse `200` (steps), `10min` (time), `auto` (Young's formula) or `off`; else ValueError."""
        if text in ("auto", "off"):
            return cls(young=text == "auto")
        if text.isdecimal():
            if int(text) == 0:
                raise ValueError("must be at least 1 step", "Use off for none.")
            return cls(steps=int(text))
        try:
            return cls(seconds=seconds_of(text))
        except ValueError:
            raise ValueError("must be steps (200), a time (10min), auto or off") from None


def _hang_seconds(text: str) -> float:
    return 0.0 if text in _OFF else seconds_of(text)


def _bytes(text: str) -> int:
    try:
        return _BYTES.validate_python(text)
    except pydantic.ValidationError:
        raise ValueError("is not a size: write it as 512MB, 2GiB or bytes") from None


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(number) for number in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 < number < math.inf for number in numbers):
        raise ValueError("must be positive numbers, such as 2,1,1", "Give one number for each rank.")
    return numbers


def origin(text: str, home: Path | None = None) -> tuple[Path, int | None]:
    """Read RUN or RUN@STEP: the absolute path of a run folder, and the step; a relative path starts at `home`."""
    run, at, step = text.rpartition("@")
    if not at or not step.isdecimal():
        run, step = text, ""
    if not run:
        raise ValueError("must be the folder of a run, or RUN@STEP", "Use --from runs/h1@400.")
    return ((home or Path.cwd()) / run).absolute(), int(step) if step else None


def _absolute_origin(text: str) -> str:
    run, step = origin(text)
    return str(run) if step is None else f"{run}@{step}"


def _faults(text: str) -> None:
    from anyrank.runtime.chaos import parse  # imports h5py, which is not needed otherwise

    parse(text)


def _read_by(read: Callable[[str], Any], may_be_empty: bool = True) -> AfterValidator:
    """Return a validator that parses a text with `read`; an empty text, if allowed, means None."""

    def check(text: str) -> str:
        if text or not may_be_empty:
            read(text)
        return text

    return AfterValidator(check)


BodyNames = Annotated[str, _read_by(lambda text: check_bodies(text.split(",")))]
FramesText = Annotated[str, _read_by(parse_frames)]
SplitName = Annotated[
    str, matching(rf"{'|'.join(SPLITS)}|\d+(x\d+)*", f"must be one of {', '.join(SPLITS)}, or a grid such as 2x3")
]


class Options(OptionSettings):
    """The options of a run. Flags, the options kept for `resume` and those refused elsewhere are derived from this."""

    ranks: Count = option(1, "MPI ranks; more than 1 starts mpiexec.", RUN, "-n", "--ranks", kept=True, not_in=JOBS)
    body: BodyNames = option(
        "auto",
        f"Kernel body: auto, {', '.join(FILES)}; with a,b the ranks of a node take them in turn.",
        RUN,
        kept=True,
    )
    split: SplitName = option(
        "auto", "Domain decomposition: auto, rows, columns, bricks, or a grid of ranks such as 2x3.", RUN, kept=True
    )
    weights: Annotated[str, _read_by(_numbers)] = option(
        "", "Relative speed of each rank, such as 2,1,1: the sizes of their blocks.", RUN, not_in=STUDIES
    )
    halo_steps: Count = option(
        1, "Make halos this many times as wide, and exchange them once in as many steps.", RUN, kept=True
    )
    transfer: Literal["auto", "direct", "staged"] = option(
        "auto",
        "How MPI gets the halos of GPUs: direct (from GPU memory), staged (through pinned host memory), or auto.",
        RUN,
        kept=True,
    )
    memory_limit: Annotated[str, _read_by(_bytes)] = option(
        "", "Memory limit of each rank, such as 2GB; some programs write what does not fit to disk.", RUN, kept=True
    )
    allocator: Literal["auto", "reuse", "system"] = option(
        "auto",
        "Memory of freed arrays: reuse (keep it for later arrays), system (the C library decides), or auto (system "
        "with --memory-limit, else reuse).",
        RUN,
        kept=True,
    )
    picture: bool = option(
        True, "Draw the final state, if the program defines a picture.", RUN, kept=True, not_in=STUDIES
    )
    as_json: bool = option(False, "Print summary.json as the last line.", RUN, "--json", not_in=JOBS)
    quiet: bool = option(False, "Print no progress and no messages.", RUN, not_in=JOBS)

    branch_from: Annotated[str, AfterValidator(_absolute_origin)] = option(
        "",
        "Begin with the State of a checkpoint of the run folder RUN, or RUN@STEP; see docs/outputs.md.",
        BRANCH,
        "--from",
        default_text="setup sets the State",
        kept=True,
        not_in=(*STUDIES, *RESUME),
    )
    regrid: Literal["", "nearest", "linear", "conservative"] = option(
        "",
        "Interpolate fields of another shape: nearest, linear or conservative.",
        BRANCH,
        kept=True,
        not_in=(*STUDIES, *RESUME),
    )
    allow_missing: str = option(
        "",
        "Members of the State, such as a,b, that setup sets if the checkpoint has none that fit.",
        BRANCH,
        kept=True,
        not_in=(*STUDIES, *RESUME),
    )

    checkpoint_every: Annotated[str, _read_by(Interval.parse, may_be_empty=False)] = option(
        "auto",
        "Interval between checkpoints: steps (200), a time (10min), auto (Young's formula), or off.",
        CHECKPOINTS,
        kept=True,
    )
    checkpoint_io: Literal["pwrite", "mpio", "gather"] = option(
        "pwrite",
        "How to write checkpoints: pwrite (each rank its part), mpio (MPI-IO), gather (rank 0 alone).",
        CHECKPOINTS,
        kept=True,
    )
    keep: Count = option(2, "Number of checkpoints to keep, besides those with a .keep file.", CHECKPOINTS, kept=True)
    mtbf: Duration = option("24h", "Mean time between failures, for --checkpoint-every auto.", CHECKPOINTS, kept=True)

    observe_every: Count | None = option(
        None,
        "Interval in steps between two rows of series.csv, which the program's observe returns.",
        OUTPUTS,
        default_text="the power of two for which the run has 64 to 128 rows",
        kept=True,
    )
    on_full_disk: Literal["stop", "warn"] = option(
        "stop",
        "If an output cannot be written: stop (end the run with status 1) or warn (end this output only).",
        OUTPUTS,
        kept=True,
    )
    frames: FramesText = option(
        "",
        "What to write into frames.nc: fields, parts and means, such as 'T,u[z=10],mean(T, z)'; or off.",
        OUTPUTS,
        default_text="the fields that the program declares with frames=True",
        kept=True,
    )
    frames_every: Count | None = option(
        None,
        "Interval in steps between two frames.",
        OUTPUTS,
        default_text="for declared fields the power of two for which the run has 8 to 16 frames",
        kept=True,
    )
    frames_stride: Count = option(1, "Write every n-th point along each axis into the frames.", OUTPUTS, kept=True)
    frames_type: Literal["", "float32", "float64"] = option(
        "",
        "Type of numbers in the frames: float32 or float64.",
        OUTPUTS,
        default_text="that of each field",
        kept=True,
    )
    frames_compression: Literal["none", "zlib"] = option(
        "none", "Compression of the frames, when the run is complete: none or zlib.", OUTPUTS, kept=True
    )

    walltime: MaybeDuration = option(
        "", "Time limit (2:00:00, 90min): stop with a checkpoint before it, with status 75.", STOPS, not_in=JOBS
    )
    stop_at: Natural | None = option(None, "Stop with a checkpoint at this step, with status 75.", STOPS, not_in=JOBS)
    hang_timeout: Annotated[str, _read_by(_hang_seconds, may_be_empty=False)] = option(
        "30min",
        "After this time without a step, print the stacks of all ranks and end; 0 means never.",
        STOPS,
        kept=True,
    )
    max_restarts: Natural = option(
        0, "Largest number of automatic restarts after a crash or a hang.", STOPS, not_in=STUDIES
    )
    min_ranks: Count = option(1, "Restart on at least this many ranks if hosts are lost.", STOPS, not_in=STUDIES)

    threads: Count | None = option(None, "Threads per rank.", PLACEMENT, default_text="1", kept=True, not_in=JOBS)
    bind: Literal["auto", "core", "none"] = option(
        "auto", "Bind ranks to cores: auto (only in batch jobs), core (always), none (never).", PLACEMENT
    )
    hosts: str = option("", "Hosts and the number of ranks on each, such as node1:8,node2:8.", PLACEMENT, not_in=JOBS)

    check: bool = option(False, "Check that all ranks make the same collective calls.", DIAGNOSTICS, not_in=STUDIES)
    digests: bool = option(False, "Write the digests of every step to digests.jsonl.", DIAGNOSTICS, not_in=STUDIES)
    chaos: Annotated[str, _read_by(_faults)] = option(
        "", "Faults to inject, such as 'kill rank=2 step=100'; see docs/trust.md.", DIAGNOSTICS, not_in=JOBS
    )
    i_mean_it: bool = option(False, "Allow --chaos in a run folder that holds a run.", DIAGNOSTICS, not_in=JOBS)

    @property
    def origin(self) -> tuple[Path, int | None] | None:
        """The run folder and the step (None: the newest) with which a branch begins; None if the run is no branch."""
        return origin(self.branch_from) if self.branch_from else None

    @property
    def missing_names(self) -> tuple[str, ...]:
        """The members that the checkpoint of a branch need not have."""
        return tuple(self.allow_missing.split(",")) if self.allow_missing else ()

    @property
    def interval(self) -> Interval:
        """When checkpoints are due."""
        return Interval.parse(self.checkpoint_every)

    @property
    def mtbf_seconds(self) -> float:
        """The mean time between failures of the job, for Young's formula."""
        return seconds_of(self.mtbf)

    @property
    def walltime_seconds(self) -> float | None:
        """The time limit in seconds, None without one."""
        return seconds_of(self.walltime) if self.walltime else None

    @property
    def hang_seconds(self) -> float:
        """Seconds without a step after which the run counts as hung; 0: the watchdog is off."""
        return _hang_seconds(self.hang_timeout)

    @property
    def memory_bytes(self) -> int | None:
        """The memory limit of a rank's process in bytes; None without a limit."""
        return _bytes(self.memory_limit) if self.memory_limit else None

    @property
    def weights_of_ranks(self) -> tuple[float, ...]:
        """The relative speed of each rank; empty if all are the same."""
        return _numbers(self.weights) if self.weights else ()

    @property
    def reuse_memory(self) -> bool:
        """Whether a rank keeps the memory of freed arrays for later arrays."""
        return self.allocator == "reuse" or (self.allocator == "auto" and not self.memory_limit)

    def kept(self) -> dict[str, Any]:
        """Return the options that the run folder keeps, without empty ones and those of a single invocation."""
        return {k: v for k, v in self.model_dump().items() if self.metadata(k).kept and v not in (None, "")}


class OutOptions(OptionSettings):
    """The option for the run folder."""

    out: str = option("", "The run folder.", RUN, default_text="a new one under runs/")


def option_words(options: Mapping[str, Any]) -> list[str]:
    """Convert options of a run to command-line arguments."""
    words = []
    for name, value in options.items():
        flag = Options.flags(name)[-1]
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            words += [flag, str(value)]
    return words
