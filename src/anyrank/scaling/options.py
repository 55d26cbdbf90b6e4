"""The options of `anyrank scale`, besides the program and its parameters."""

from __future__ import annotations

from anyrank.declaration import OptionTable, option
from anyrank.runtime.duration import Duration
from anyrank.values import Count

STUDY = "Study"


class ScaleOptions(OptionTable):
    """The options of a scaling study; numbers of ranks are read by the command, which knows the machine."""

    out: str = option("", "The study's folder; an existing study continues.", STUDY, default_text="a new one in runs/")
    ranks: str = option("1,2", "Numbers of ranks.", STUDY, "-n", "--ranks")
    repeat: Count = option(5, "Number of rounds.", STUDY)
    grow: str = option(
        "", "Parameters that grow with the ranks.", STUDY, default_text="the program's", not_in=("strong",)
    )
    hosts: str = option("", "Hosts of the ranks: node1:8,node2:8.", STUDY)
    allow: Count | None = option(None, "The largest allowed number of ranks.", STUDY, default_text="4, or 2 per core")
    predict: str = option("", "Also predict the time on these numbers of ranks: 1024,16384.", STUDY)
    network: str = option("", "A file from anyrank doctor --network --out.", STUDY, default_text="measured here")
    timeout: Duration = option("1h", "A run that takes longer fails.", STUDY)
