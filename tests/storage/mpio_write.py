"""Write the same checkpoint with mpio and with pwrite: FOLDER/mpio, FOLDER/pwrite. Runs on several ranks."""

from __future__ import annotations

import sys
from pathlib import Path

from samples import declare, write

from anyrank.world import World

if __name__ == "__main__":
    world = World(check=sys.argv[2] == "2")  # h5py must accept a communicator that checks, too
    assert world.size == int(sys.argv[2]), f"{world.size} ranks, not {sys.argv[2]}"
    for way in ("mpio", "pwrite"):
        write(Path(sys.argv[1]) / way, declare(world, "columns"), 2, io=way)
