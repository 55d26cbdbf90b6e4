"""A book for tests: the King James Bible, from Debian's bible-kjv."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def king_james(folder: Path) -> Path:
    """Write the Bible into a file, 4.4 MB, one verse per line; skips the test if the package is not installed."""
    if not shutil.which("bible") and not os.environ.get("CI"):
        pytest.skip("needs Debian's package bible-kjv")
    path = folder / "bible.txt"
    with path.open("wb") as file:
        subprocess.run(["bible", "-f", "Gen1:1-Rev22:21"], stdin=subprocess.DEVNULL, stdout=file, check=True)
    return path
