"""Data that moves between ranks: one file per pattern."""

from anyrank.exchange.halo import Halo, Region

__all__ = ["Halo", "Region"]
