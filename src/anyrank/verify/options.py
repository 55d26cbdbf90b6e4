"""The options of `anyrank verify`, besides the program and its parameters."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator

from anyrank.declaration import OptionSettings, option
from anyrank.errors import UsageError
from anyrank.layout import SPLITS
from anyrank.runtime.duration import Duration
from anyrank.runtime.options import BodyNames, FramesText
from anyrank.values import Count

VERIFY = "Verification"


def _splits(text: str) -> str:
    for name in text.split(",") if text else ():
        if name not in SPLITS:
            raise UsageError(f"--split {name!r} must be one of {', '.join(SPLITS)}, or several joined by commas.")
    return text


class VerifyOptions(OptionSettings):
    """The options of a verification; numbers of ranks are read by the command, which knows the machine."""

    ranks: str = option("1,2,3,4", "Numbers of ranks to run.", VERIFY, "-n", "--ranks")
    body: BodyNames = option("", "Kernel bodies to run, such as numba,cython.", VERIFY, default_text="all")
    split: Annotated[str, AfterValidator(_splits)] = option(
        "", "Domain decompositions to run, such as rows,bricks.", VERIFY, default_text="rows,columns,bricks"
    )
    observe_every: Count | None = option(
        None, "Interval in steps between two rows of the series.", VERIFY, default_text="that of a run"
    )
    frames: FramesText = option(
        "",
        "Frames to write and compare, as those of a run; needs --frames-every.",
        VERIFY,
        default_text="declared fields",
    )
    frames_every: Count | None = option(
        None, "Interval in steps between two frames.", VERIFY, default_text="that of a run"
    )
    quick: bool = option(False, "Run only the most informative cases, for instance at every commit.", VERIFY)
    junit: str = option("", "Write the result of each case to this file, in JUnit XML.", VERIFY)
    out: str = option("", "A new folder for all runs.", VERIFY, default_text="a temporary one, kept if cases differ")
    timeout: Duration = option("10min", "Time limit of each run; a run that takes longer fails.", VERIFY)
    allow: Count | None = option(
        None, "Largest number of ranks that --ranks may contain.", VERIFY, default_text="4, or 2 per core"
    )

    def outputs(self) -> dict[str, Any]:
        """Return the options of a run that say which outputs it writes."""
        names = ("observe_every", "frames", "frames_every")
        return {name: value for name in names if (value := getattr(self, name))}
