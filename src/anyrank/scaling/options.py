"""The options of `anyrank scale`, besides the program and its parameters."""

from __future__ import annotations

from anyrank.declaration import OptionSettings, option
from anyrank.runtime.duration import Duration
from anyrank.values import Count

STUDY = "ScalingStudy"


class ScaleOptions(OptionSettings):
    """The options of a scaling study; numbers of ranks are read by the command, which knows the machine."""

    out: str = option("", "The study's folder; an existing study continues.", STUDY, default_text="a new one in runs/")
    ranks: str = option("1,2", "Numbers of ranks to measure.", STUDY, "-n", "--ranks")
    repeat: Count = option(5, "Number of rounds; each runs every number of ranks once.", STUDY)
    grow: str = option(
        "", "Parameters that grow with the number of ranks.", STUDY, default_text="the program's", not_in=("strong",)
    )
    hosts: str = option("", "Hosts and the number of ranks on each, such as node1:8,node2:8.", STUDY)
    allow: Count | None = option(
        None, "Largest number of ranks that --ranks may contain.", STUDY, default_text="4, or 2 per core"
    )
    predict: str = option("", "Predict the time on these numbers of ranks, such as 1024,16384.", STUDY)
    network: str = option(
        "", "Network for predictions: a file from anyrank doctor --network --out.", STUDY, default_text="measured here"
    )
    timeout: Duration = option("1h", "Time limit of each run; a run that takes longer fails.", STUDY)
