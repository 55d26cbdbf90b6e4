"""A real book for tests: the King James Bible, from Debian's bible-kjv."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def king_james(folder: Path) -> Path:
    """The Bible in a file of the folder, 4.4 MB, a verse in each line; skips the test where the package is not."""
    if not shutil.which("bible") and not os.environ.get("CI"):
        pytest.skip("needs Debian's package bible-kjv")
    path = folder / "bible.txt"
    with path.open("wb") as file:
        subprocess.run(["bible", "-f", "Gen1:1-Rev22:21"], stdin=subprocess.DEVNULL, stdout=file, check=True)
    return path
