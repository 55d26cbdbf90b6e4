"""TOML for every version of Python: `tomllib` of Python 3.11, or the package `tomli`."""

import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["read_toml"]


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises OSError if it cannot be read, and ValueError if it is not TOML in UTF-8."""
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return table
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
