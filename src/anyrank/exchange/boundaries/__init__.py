"""Boundary conditions: one file each."""

from anyrank.exchange.boundaries.antireflect import Antireflect
from anyrank.exchange.boundaries.boundary import Boundary, Side, Value
from anyrank.exchange.boundaries.extrapolate import Extrapolate
from anyrank.exchange.boundaries.fixed import Fixed
from anyrank.exchange.boundaries.function import Function
from anyrank.exchange.boundaries.neumann import Neumann
from anyrank.exchange.boundaries.periodic import Periodic
from anyrank.exchange.boundaries.reflect import Reflect

__all__ = [
    "Antireflect",
    "Boundary",
    "Extrapolate",
    "Fixed",
    "Function",
    "Neumann",
    "Periodic",
    "Reflect",
    "Side",
    "Value",
]
