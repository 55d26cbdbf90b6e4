"""Data that moves between ranks: one file per pattern."""

from anyrank.exchange.buffers import Region
from anyrank.exchange.gather import gather
from anyrank.exchange.halo import Halo

__all__ = ["Halo", "Region", "gather"]
