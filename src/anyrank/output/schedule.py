"""When an output is due: at multiples of an interval in steps, which may depend on the length of the run."""

from __future__ import annotations

from dataclasses import dataclass

#: The largest number of intervals of a run if the user gives none.
INTERVALS = 128


def default_interval(length: int, most: int) -> int:
    """Return the smallest power of two for which a run of `length` steps has at most `most` intervals."""
    return 1 << (-(-max(length, 1) // most) - 1).bit_length()


@dataclass(frozen=True)
class Schedule:
    """The steps at which an output is due, besides the last step of a finished run. Step 0 is due.

    By default the interval is the smallest power of two for which the run has at most 128 intervals: the output of a
    shorter run then has every step that the output of a longer run needs. If the number of steps is not known, the
    interval at a step is that of a run up to this step. So more steps are due than the finished output keeps: see
    `keeps`.

    Parameters
    ----------
    given : int, optional
        The interval in steps, as the user gives it.
    total : int, optional
        The number of steps of the run, if it is known.
    first : int
        The step at which the run began: a branch continues from the step of its checkpoint.
    """

    given: int | None = None
    total: int | None = None
    first: int = 0

    def interval(self, step: int) -> int:
        """Return the interval in steps at a step."""
        if self.given is not None:
            return self.given
        return default_interval(max(step, self.total or 0), INTERVALS)

    def due(self, step: int) -> bool:
        """Return whether an output is due at a step."""
        return step % self.interval(step) == 0

    def needed(self, step: int) -> range:
        """Return the steps that an output must have when it continues from a step."""
        interval = self.interval(step)
        return range(-(-self.first // interval) * interval, step + 1, interval)

    def keeps(self, step: int, last: int) -> bool:
        """Return whether the output of a run that finished at the step `last` keeps what was due at `step`."""
        return step == last or step % self.interval(last) == 0
