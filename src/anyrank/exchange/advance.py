"""advance: replace the values of Fields in a step, with the halo exchange concurrent with the kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb
from typing import Any

import numpy as np

from anyrank.errors import AnyrankError, UsageError
from anyrank.exchange.block import HaloBlock, Region
from anyrank.exchange.halo import Halo, halo_of
from anyrank.exchange.walls import fill, prescribe
from anyrank.kernel import Kernel

#: The number of points per rank from which a halo exchange overlaps with computing; with fewer, one call of the kernel
#: is faster. On a GPU it always overlaps: a call returns at once, and the edges are copied to the host meanwhile.
OVERLAP_POINTS = 1 << 14


def advance(fields: Sequence[HaloBlock], kernel: Kernel, *rest: Any, reads: Sequence[HaloBlock] = ()) -> None:
    """Replace the values of fields by those that a kernel computes from them, and exchange halos. Collective.

    Parameters
    ----------
    fields : sequence of Field
        The fields to replace. `new` are views for the results, of the shape of the region; `current` are views of the
        present values with their halo around the region.
    kernel : Kernel
        It is called as `kernel(*new, *current, *reads, *rest)` on regions of the block: all arrays have the global
        indices of the region, those with a halo also the ones around it, so that the same position in them is the same
        index. The interior is computed during the halo exchange, and the border after it: the regions depend on the
        size of the block and on the ranks. Therefore the kernel must compute each point only from the arguments at this
        point and its neighbours. Data that depends on the point, such as a mask, must be a Field; a kernel with
        `indices=True` gets the global indices of the region.
    *rest
        Further arguments. A Field is passed as its view of the region, which the kernel may update in place; everything
        else, also an array, is passed unchanged.
    reads : sequence of Field
        Fields that the kernel reads with their halo and does not change. They travel in the same message.

    Raises
    ------
    UsageError
        If a Field has another decomposition than the first one, or a Field in `rest` has a halo, before any work; or if
        the kernel returns a result instead of writing it, or reads more neighbours than the halos have.

    Notes
    -----
    Staggered fields of a grid have one point more along an axis with walls. A region of the last rank then contains
    the last index of the longest field; the values of shorter fields at this index are not used.

    If the margin of the fields is wider than their halo, ghost cells are computed as well, one layer less in each step,
    and halos are exchanged when no valid layer is left (Ding and He, A ghost cell expansion method for reducing
    communications in solving PDE problems, SC 2001; Demmel et al., Avoiding communication in sparse matrix
    computations, IPDPS 2008).

    Examples
    --------
    >>> u = State(World()).field("u", (4,), halo=1)
    >>> u[...] = [0.0, 0.0, 4.0, 0.0]
    >>> def add_neighbours(new, old):
    ...     new[...] = old[:-2] + old[2:]
    >>> advance([u], Kernel(add_neighbours))
    >>> u.local
    array([0., 4., 0., 4.])
    """
    _check_sequences(fields, reads)
    others = [item for item in rest if isinstance(item, HaloBlock)]
    plan = _plan_of(fields, reads, others)
    halo = plan.halo_if_due()
    for field in plan.surplus if halo is not None else plan.changing:
        fill(field)
    depth = plan.depth()
    _compute(_Call(plan, kernel, rest), plan.region(depth), halo)
    for field in fields:
        field.swap()
        prescribe(field)
    for field in plan.changing:
        field.valid = depth


class _Plan:
    """What the calls of `advance` for the same fields have in common, computed once: a step may take microseconds."""

    def __init__(self, fields: Sequence[HaloBlock], reads: Sequence[HaloBlock], others: Sequence[HaloBlock]):
        _check_fields(fields, reads, others)
        self.fields, self.inputs, self.others = tuple(fields), (*fields, *reads), others
        #: The fields without the constants, whose ghost cells are final.
        self.changing = [field for field in dict.fromkeys((*self.inputs, *others)) if not field.constant]
        #: Those whose surplus layers are not filled by an exchange, because they have no ghost cells.
        self.surplus = [field for field in self.changing if any(field.surplus) and not any(field.margin)]
        others_with_ghosts = [field for field in others if field.margin != field.halo]
        exchanged = dict.fromkeys((*self.inputs, *others_with_ghosts))
        self.exchanged = [field for field in exchanged if not field.constant]
        self._depths: dict[tuple[tuple[int, ...], ...], tuple[int, ...]] = {}
        self._regions: dict[tuple[int, ...], Region] = {}
        self._indices: dict[tuple[tuple[int, int], ...], tuple[list[Region], ...]] = {}

    def depth(self) -> tuple[int, ...]:
        """Return how many layers of ghost cells the valid ones suffice for, per axis; negative if not for the block."""
        valid = tuple(field.valid for field in (*self.inputs, *self.others))
        if valid not in self._depths:
            left = [[v - h for v, h in zip(field.valid, field.halo, strict=True)] for field in self.inputs]
            axes = zip(*left, *(field.valid for field in self.others), strict=True)
            self._depths[valid] = tuple(min(axis) for axis in axes)
        return self._depths[valid]

    def halo_if_due(self) -> Halo | None:
        """Return the exchange that must come first, and mark its ghost cells valid; None if the valid ones suffice."""
        if min(self.depth()) >= 0:
            return None
        for field in self.exchanged:
            field.valid = field.margin
        return halo_of([field for field in self.exchanged if any(field.margin)])

    def region(self, depth: tuple[int, ...]) -> Region:
        """Return the region to compute: the block of the longest field, extended by `depth` layers of ghost cells."""
        if depth not in self._regions:
            blocks = zip(*(field.extended_block(depth) for field in self.fields), strict=True)
            self._regions[depth] = tuple(
                slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in blocks
            )
        return self._regions[depth]

    def indices(self, region: Region) -> tuple[list[Region], ...]:
        """Return the region as indices into the arrays of the fields, of the inputs with their halo, and of others."""
        key = tuple((s.start, s.stop) for s in region)
        if key not in self._indices:
            new = [field.within(region) for field in self.fields]
            old = [field.within(region, field.halo) for field in self.inputs]
            self._indices[key] = new, old, [field.within(region) for field in self.others]
        return self._indices[key]


def _plan_of(fields: Sequence[HaloBlock], reads: Sequence[HaloBlock], others: Sequence[HaloBlock]) -> _Plan:
    # A plan keeps its fields, so that no other object gets their ids.
    key, plans = (len(fields), len(reads), *map(id, (*fields, *reads, *others))), fields[0].plans
    if key not in plans:
        plans[key] = _Plan(fields, reads, others)
    plan: _Plan = plans[key]
    return plan


def _compute(call: _Call, region: Region, halo: Halo | None) -> None:
    """Call the kernel on a region, and meanwhile exchange the halo that it needs."""
    regions = [region]
    if halo is not None:
        inner, borders = halo.regions(region)
        halo.start()
        least = OVERLAP_POINTS if call.plan.fields[0].device.on_host else 1
        if borders and np.prod([s.stop - s.start for s in inner]) >= least:
            try:
                call(inner)
            except AnyrankError:
                halo.finish()  # all ranks may end normally with this error, which needs that no message is under way
                raise
            regions = borders
        halo.finish()
    for part in regions:
        call(part)


def _check_sequences(fields: Any, reads: Any) -> None:
    if isinstance(fields, HaloBlock) or isinstance(reads, HaloBlock) or not fields:
        raise UsageError("advance takes Fields in lists, at least one to replace: advance([u, v], kernel, reads=[k]).")


def _check_fields(fields: Sequence[HaloBlock], reads: Sequence[HaloBlock], others: Sequence[HaloBlock]) -> None:
    first, staggered = fields[0], {axis for field in fields for axis in field.faces}
    for item in (*fields, *reads, *others):
        if item.cells.cuts != first.cells.cuts or not staggered <= item.staggered:
            raise UsageError(
                f"advance: field {item.name} {item.layout.shape} and {first.name} {first.layout.shape} are split "
                "differently, but the kernel gets one region of both. Give them one shape, or declare them on one grid "
                "(state.grid)."
            )
        if item.periodic != first.periodic:
            raise UsageError(
                f"advance: the axes of field {item.name} are periodic={item.periodic}, and those of {first.name} "
                f"{first.periodic}, but their halos are exchanged together. Declare them on one grid (state.grid)."
            )
    if len({*fields}) < len(fields):
        raise UsageError(f"advance lists a field twice: {', '.join(field.name for field in fields)}. List each once.")
    for item in fields:
        if item.constant:
            raise UsageError(f"advance replaces the values of {item.name}, a constant: list it in reads= instead.")
    for item in others:
        if any(item.halo):
            raise UsageError(
                f"advance: field {item.name} is given after the kernel, where a Field is passed without its halo of "
                f"{max(item.halo)}: a kernel that reads its neighbours would read other memory. Give it as reads="
                f"[{item.name}] if the kernel reads its neighbours, or declare it with halo=0 if it does not."
            )


def parts_of(region: Region) -> Sequence[Region]:
    """Return the disjoint regions on which `advance` calls a kernel to compute `region`: the region itself.

    `anyrank verify` replaces this function to find kernels that depend on how a block is cut.
    """
    return (region,)


@dataclass(frozen=True)
class _Call:
    """The call of a kernel on regions of the block."""

    plan: _Plan
    kernel: Kernel
    rest: Sequence[Any]

    def __call__(self, region: Region) -> None:
        plan = self.plan
        for part in parts_of(region):
            new, old, other = plan.indices(part)
            remaining = iter(other)
            arguments = (
                *(field.next_storage[index] for field, index in zip(plan.fields, new, strict=True)),
                *(field.storage[index] for field, index in zip(plan.inputs, old, strict=True)),
                *(item.storage[next(remaining)] if isinstance(item, HaloBlock) else item for item in self.rest),
                *([plan.fields[0].global_indices(part)] if self.kernel.indices else []),
            )
            try:
                result = self.kernel(*arguments)
            except ValueError as error:
                if "shape" not in str(error):
                    raise
                raise self._shapes_differ(error, arguments) from error
            if result is not None:
                raise self._returned(result)

    def _returned(self, result: Any) -> UsageError:
        outputs = "first argument" if len(self.plan.fields) == 1 else f"first {len(self.plan.fields)} arguments"
        return UsageError(
            f"kernel {self.kernel.name} returned a value of type {type(result).__name__}, and advance uses only what a "
            f"kernel writes. Write the new values into its {outputs}, such as new[...] = values, and return nothing."
        )

    def _shapes_differ(self, error: ValueError, arguments: Sequence[Any]) -> UsageError:
        line = extract_tb(error.__traceback__)[:3][-1]  # this module, the class Kernel, and the body
        halos = (f"{field.name} has a halo of {'x'.join(map(str, field.halo))}" for field in self.plan.inputs)
        return UsageError(
            f"kernel {self.kernel.name} at {Path(line.filename).name}:{line.lineno}: {str(error).strip(' .')}. "
            f"Its first argument has the shape {arguments[0].shape} in this call; {', '.join(dict.fromkeys(halos))}. "
            "A kernel that reads neighbours at a distance of k needs fields with halo=k or more; arrays of a block "
            "must be fields, too, because a kernel is called on parts of the block."
        )
