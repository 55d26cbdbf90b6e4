"""Preparing a run: the place of each rank, its device, checks between ranks, and the declared state."""

from __future__ import annotations

import os
from pathlib import Path

from anyrank.errors import UsageError
from anyrank.kernel import BODIES
from anyrank.program import Program
from anyrank.runtime.allocator import reuse_freed_memory
from anyrank.runtime.memory import shortage
from anyrank.runtime.options import Options
from anyrank.runtime.placement import place
from anyrank.runtime.startup import check_ranks, check_state, device_of
from anyrank.state import State
from anyrank.world import World


class Prepared:
    """What is known of a run before its folder is touched. Making it is collective.

    Raises UsageError on all ranks where the program, the options, the devices or the ranks do not fit.
    """

    def __init__(self, program: Program, source: str, world: World, options: Options, folder: Path):
        self._program, self._world, self._options, self._folder = program, world, options, folder
        if options.reuse_memory:
            reuse_freed_memory()
        masks = world.node_gather(frozenset(os.sched_getaffinity(0)))
        #: The cores of this node that its ranks may use.
        self.cores = len(frozenset().union(*masks))
        with world.raise_on_all_ranks():
            #: The place of this rank in words, and a warning where its node has too few cores.
            self.place, self.oversubscribed = place(options, masks, world.node_rank)
            BODIES.prefer(options.body, world.node_rank)
        self.device = device_of(world)
        self.warnings = check_ranks(world, program, source, options)
        #: Why halos of GPUs travel as they do; empty where there is no GPU.
        self.transfer_reason = self._choose_transfer()
        self.state = self._declare()

    def _choose_transfer(self) -> str:
        if self._world.all(BODIES.device.on_host):
            self._world.transfer = "host"
            return ""
        from anyrank.exchange.aware import choose  # of no use without a GPU

        self._world.transfer, reason = choose(self._world, BODIES.device, self._options.transfer)
        return reason

    def _declare(self) -> State:
        world = self._world
        with world.raise_on_all_ranks():
            self._check_deep_halos()
        state = self._new_state()
        with world.raise_on_all_ranks():
            self._program.declare(state)
        check_state(state, self._program.steps)
        refusal = shortage(state, self._program.name)
        with world.raise_on_all_ranks():  # before any of it is allocated
            if refusal is not None:
                raise refusal
        with world.raise_on_all_ranks(*([MemoryError] if state.device.on_host else [])):
            state.allocate()
        return state

    def _new_state(self) -> State:
        options, seed = self._options, int(self._program.parameters.get("seed", 0))
        limit = options.memory_bytes
        return State(self._world, options.split, seed, options.halo_steps, folder=self._folder, memory_limit=limit)

    def _check_deep_halos(self) -> None:
        steps, name = self._options.halo_steps, self._program.name
        if steps > 1 and self._program.deep_halos is not True:
            raise UsageError(
                f"--halo-steps {steps} must be 1 unless the program allows more, and {name} does not. Leave it out, or "
                "put deep_halos = True into it, if only setup and kernels write fields, and kernels nothing else."
            )
