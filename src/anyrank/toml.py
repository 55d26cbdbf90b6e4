"""TOML for every Python: `tomllib`, which came with 3.11, or what it was before."""

import sys

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["tomllib"]
