"""TOML for every Python: `tomllib`, which came with 3.11, or what it was before."""

import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["read_toml"]


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises OSError where it cannot be read, and ValueError where it is no TOML in UTF-8."""
    try:
        found: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return found
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
