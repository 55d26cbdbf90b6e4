"""A rank of the case "hash seed": it starts Python again with a hash seed that no other rank has.

Without PYTHONHASHSEED every rank has its own seed. Several seeds also find more: two seeds often give a small set the
same order.
"""

from __future__ import annotations

import os
import sys

from anyrank.launcher import task

if __name__ == "__main__":
    os.environ["PYTHONHASHSEED"] = str(int(os.environ["PYTHONHASHSEED"]) + task())
    os.execv(sys.executable, [sys.executable, "-m", "anyrank.verify.rank", *sys.argv[1:]])
