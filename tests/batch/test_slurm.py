"""Jobs on a real Slurm of three nodes."""

from __future__ import annotations

import sys

from ranks import mpiexec_path

RANK = """
import os
from mpi4py import MPI
world = MPI.COMM_WORLD
nodes = world.gather(os.environ["SLURMD_NODENAME"])
if world.rank == 0:
    print(os.environ["SLURM_NODELIST"], world.size, *nodes)
"""


def test_slurm_mpiexec_distributes_ranks_over_nodes(tmp_path, slurm):
    (tmp_path / "rank.py").write_text(RANK)
    command = f"{mpiexec_path()} -n 4 {sys.executable} rank.py"
    (tmp_path / "job").write_text(f"#!/bin/sh\n#SBATCH --nodes=2 --ntasks-per-node=2 --output=out\n{command}\n")
    slurm.wait_for(slurm.run("sbatch", "--parsable", "job", cwd=tmp_path), "COMPLETED")
    assert (tmp_path / "out").read_text() == "n[1-2] 4 n1 n1 n2 n2\n"
