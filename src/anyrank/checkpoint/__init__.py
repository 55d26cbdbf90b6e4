"""Checkpoints: the State at a step in one global-order HDF5 file, never lost and never trusted blindly."""

from anyrank.checkpoint.checkpoints import Checkpoints
from anyrank.checkpoint.interval import young_interval
from anyrank.checkpoint.read import Restored
from anyrank.checkpoint.write import Saved

__all__ = ["Checkpoints", "Restored", "Saved", "young_interval"]
