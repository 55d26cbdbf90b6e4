"""The matrix of cases in which a program is run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from anyrank.verify.case import PERTURBATIONS, REFERENCE, Case


@dataclass(frozen=True)
class CaseMatrix:
    """The user's choice of cases; empty `bodies` and `splits` select all of the matrix."""

    ranks: tuple[int, ...] = (1, 2, 3, 4)
    bodies: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    quick: bool = False
    #: Whether the program allows --halo-steps.
    deep_halos: bool = False
    #: Whether a run can be extended by its parameter `steps`.
    extendable: bool = False

    @property
    def largest(self) -> int:
        """The largest number of ranks."""
        return max(self.ranks)

    def first(self) -> list[Case]:
        """Return the cases that come first for every program, starting with the reference."""
        return [REFERENCE, Case(body="reference", changed="again"), Case()]

    def rest(self, steps: int, axes: int) -> list[Case]:
        """Return all other cases of a program with this number of steps and of axes of its fields."""
        cases = [*self._layouts(axes), *self._bodies(), *self._restarts(steps), *self._perturbed(), *self._parts()]
        return [case for case in dict.fromkeys([*cases, *self._halo_steps()]) if case not in self.first()]

    @property
    def _few(self) -> int:
        """A small number of ranks, two if possible: enough for an exchange, and fast to start."""
        return max((n for n in self.ranks if n <= 2), default=min(self.ranks))

    @property
    def _odd(self) -> int:
        """An odd number of ranks, which shows races and uneven parts better; otherwise the largest number."""
        return max((n for n in self.ranks if n % 2 and n > 1), default=self.largest)

    def _layouts(self, axes: int) -> Iterator[Case]:
        for n in self.ranks:
            if not self.quick or axes < 2 or n < self.largest or n in (self._few, self._odd):
                yield Case((n,))
        if axes > 1:
            splits = self.splits or (("rows", "bricks") if self.quick else ("rows", "columns", "bricks"))
            yield from (Case((self.largest,), split=split) for split in splits)
            if not self.quick:
                yield Case((self._odd,), split="columns")

        if axes and self._odd > 1:
            yield Case((self._odd,), changed="weights")

    def _bodies(self) -> Iterator[Case]:
        bodies = self.bodies or (("shim",) if self.quick else ("numba", "cython", "cupy", "shim", "shim,auto"))
        yield from (Case((self._few,), body=body) for body in bodies)

    def _restarts(self, steps: int) -> Iterator[Case]:
        """Yield stops in the middle, with the same and other numbers of ranks, and at step 0; and an extended run."""
        few = self._few
        if self.quick and steps:
            yield Case((1, few), (steps // 2,))
        elif steps:
            yield Case((few, few), (steps // 2,))
            yield Case((1, self.largest, few), (steps // 3, 2 * steps // 3))
            yield Case((self.largest, 1), (0,))
        if self.extendable and steps > 1:
            yield Case((1, few), extended=steps // 2)

    def _perturbed(self) -> Iterator[Case]:
        if self._odd > 1:
            yield Case((self._odd,), changed="timing")
        for name in PERTURBATIONS:  # each rank has another hash seed, and other bytes in new memory
            yield Case((self._odd if name in ("memory", "hash seed") else self._few,), changed=name)
        if not self.quick:
            yield from (Case(changed=name) for name in PERTURBATIONS)
            yield Case((self.largest,), changed="again")

    def _parts(self) -> Iterator[Case]:
        """Yield cases of divided blocks: on one rank, where nothing else divides them, and on several."""
        ranks = (1, self._odd) if self.quick else (1, self._odd, self.largest)
        yield from (Case((n,), changed="parts") for n in ranks)

    def _halo_steps(self) -> Iterator[Case]:
        """Yield cases in which ranks compute ghost cells, if the program allows it."""
        ranks = (self._odd,) if self.quick else (self._odd, self.largest)
        yield from (Case((n,), changed="halo steps") for n in ranks if self.deep_halos)
