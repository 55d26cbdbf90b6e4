"""Communication between ranks: one file per pattern."""

import anyrank.world  # noqa: F401  (sets how MPI is started; modules here import MPI)
from anyrank.exchange.block import Region
from anyrank.exchange.gather import gather
from anyrank.exchange.halo import Halo

__all__ = ["Halo", "Region", "gather"]
