"""Preparation of a run: placement of the ranks, devices, checks between ranks, and the declared state."""

from __future__ import annotations

import os
from pathlib import Path

from anyrank.errors import UsageError
from anyrank.kernel import BODIES
from anyrank.program import Program
from anyrank.runtime.allocator import reuse_freed_memory
from anyrank.runtime.memory import shortage
from anyrank.runtime.options import Options
from anyrank.runtime.outputs import check_outputs
from anyrank.runtime.placement import place_rank
from anyrank.runtime.startup import check_ranks, check_state, device_of
from anyrank.state import State
from anyrank.world import World


class Prepared:
    """A run that is checked and declared, before its folder is touched. Construction is collective.

    Raises UsageError on all ranks if the program, the options, the devices or the ranks are not valid together.
    """

    def __init__(self, program: Program, source: str, world: World, options: Options, folder: Path):
        self._program, self._world, self._options, self._folder = program, world, options, folder
        if options.reuse_memory:
            reuse_freed_memory()
        masks = world.node_gather(frozenset(os.sched_getaffinity(0)))
        #: The cores of this node that its ranks may use.
        self.cores = len(frozenset().union(*masks))
        with world.raise_on_all_ranks():
            #: The placement of this rank as text, and a warning if its node has too few cores.
            self.placement, self.oversubscribed = place_rank(options, masks, world.node_rank)
            BODIES.prefer(options.body, world.node_rank)
        self.device = device_of(world)
        self.warnings = check_ranks(world, program, source, options)
        #: Why this transfer of GPU halos was chosen; empty without a GPU.
        self.transfer_reason = self._choose_transfer()
        self.state = self._declare()

    def _choose_transfer(self) -> str:
        if self._world.all(BODIES.device.on_host):
            self._world.transfer = "host"
            return ""
        from anyrank.exchange.aware import choose_transfer  # imported only with a GPU

        self._world.transfer, reason = choose_transfer(self._world, BODIES.device, self._options.transfer)
        return reason

    def _declare(self) -> State:
        world = self._world
        with world.raise_on_all_ranks():
            self._check_deep_halos()
            check_outputs(self._program, self._options)
        state = self._new_state()
        with world.raise_on_all_ranks():
            self._program.declare(state)
        check_state(state, self._program.steps)
        refusal = shortage(state, self._program.name)
        with world.raise_on_all_ranks():  # before anything is allocated
            if refusal is not None:
                raise refusal
        with world.raise_on_all_ranks(*([MemoryError] if state.device.on_host else [])):
            state.allocate()
        return state

    def _new_state(self) -> State:
        options, seed = self._options, int(self._program.parameters.get("seed", 0))
        return self._program.state_type(
            self._world,
            options.split,
            seed,
            options.halo_steps,
            folder=self._folder,
            memory_limit=options.memory_bytes,
            weights=options.weights_of_ranks,
        )

    def _check_deep_halos(self) -> None:
        steps, name = self._options.halo_steps, self._program.name
        if steps > 1 and self._program.deep_halos is not True:
            raise UsageError(
                f"--halo-steps {steps} must be 1, because {name} does not allow more. Omit the option, or set "
                "deep_halos = True in the program, if only setup and kernels write fields, and kernels write nothing "
                "else."
            )
