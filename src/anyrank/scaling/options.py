"""What `anyrank scale` is asked for beside a program and its parameters."""

from __future__ import annotations

from anyrank.declaration import OptionTable, option
from anyrank.runtime.duration import Duration
from anyrank.values import Count

STUDY = "Study"


class ScaleOptions(OptionTable):
    """The options of a scaling study; numbers of ranks are read by the command, which knows the machine."""

    out: str = option("", "The study's folder; one that is there goes on.", STUDY, default_text="a new one in runs/")
    ranks: str = option("1,2", "Numbers of ranks.", STUDY, "-n", "--ranks")
    repeat: Count = option(5, "Rounds.", STUDY)
    grow: str = option(
        "", "Parameters that grow with the ranks.", STUDY, default_text="the program's", not_in=("strong",)
    )
    hosts: str = option("", "Where to start the ranks here: node1:8,node2:8.", STUDY)
    allow: Count | None = option(None, "The most ranks there may be here.", STUDY, default_text="4, or 2 per core")
    predict: str = option("", "Predict the time on so many ranks, too: 1024,16384.", STUDY)
    network: str = option("", "What anyrank doctor --network --out has written.", STUDY, default_text="measured here")
    timeout: Duration = option("1h", "A run that takes longer has failed.", STUDY)
