"""Keyed data: read, combine by key, sort and write rows on all ranks.

This module exports the public names; docs/keyed.md shows how to use them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anyrank.keyed.aggregate import rounded
    from anyrank.keyed.order import head, ordered
    from anyrank.keyed.patterns import Patterns
    from anyrank.keyed.rows import Text
    from anyrank.keyed.sorting import Sorter, sort
    from anyrank.keyed.table import Table
    from anyrank.keyed.tables import TableFiles
    from anyrank.keyed.tables.columns import ColumnSpec
    from anyrank.keyed.text import TextFiles
    from anyrank.keyed.words import Words
    from anyrank.keyed.write import write_csv, write_hdf5, write_parquet

_MODULES = {
    "ColumnSpec": "tables.columns",
    "Patterns": "patterns",
    "Sorter": "sorting",
    "Table": "table",
    "TableFiles": "tables",
    "Text": "rows",
    "TextFiles": "text",
    "Words": "words",
    "head": "order",
    "ordered": "order",
    "rounded": "aggregate",
    "sort": "sorting",
    "write_csv": "write",
    "write_hdf5": "write",
    "write_parquet": "write",
}

__all__ = [
    "ColumnSpec",
    "Patterns",
    "Sorter",
    "Table",
    "TableFiles",
    "Text",
    "TextFiles",
    "Words",
    "head",
    "ordered",
    "rounded",
    "sort",
    "write_csv",
    "write_hdf5",
    "write_parquet",
]


def __getattr__(name: str) -> Any:
    # Import on first use: some of these modules import each other.
    if name in _MODULES:
        return getattr(import_module(f"anyrank.keyed.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'anyrank.keyed' has no attribute {name!r}")
