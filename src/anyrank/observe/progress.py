"""Progress: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

#: The process that starts mpiexec sets this to the width of its terminal in columns, if standard error is a terminal.
TERMINAL = "ANYRANK_TERMINAL"
#: Seconds between two plain lines.
PLAIN_EVERY = 10.0
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def terminal_width(environment: Mapping[str, str] = os.environ) -> int:
    """Return the width of the terminal of standard error in columns, 0 if it is not a terminal."""
    if environment.get(TERMINAL, "").isdigit():
        return int(environment[TERMINAL])
    return (os.get_terminal_size(sys.stderr.fileno()).columns or 80) if sys.stderr.isatty() else 0


def si(value: float) -> str:
    """Format a number with three digits and a decimal prefix, to be followed by a unit: `312 M `, `7.5 `."""
    for size, prefix in _UNITS:
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix} "
    return f"{value:.3g} "


class Progress:
    """Shows the progress of a run. Cheap to call at every step; silent if `show` is False (all but rank 0)."""

    def __init__(self, label: str, total: int, done: int, work: tuple[float, str], show: bool, unit: str = "step"):
        self._unit = unit
        self._label, self._total, self._work, self._show = label, total, work, show
        self._start = self._last = time.monotonic()
        self._first = done
        #: Text at the end of the line, such as the newest values of the program.
        self.note = ""
        self._bar: Any = None
        width = terminal_width() if show else 0
        if width:
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, initial=done, desc=label, ncols=width, nrows=20, unit=f" {unit}s", file=sys.stderr
            )

    def update(self, step: int, now: float) -> None:
        """Show that the run has done `step` steps, or other units; `now` is the monotonic clock."""
        if self._bar is not None:
            if now - self._last > 0.1:
                self._last = now
                self._bar.set_postfix_str(self._rate(step, now) + self._noted(), refresh=False)
                self._bar.update(step - self._bar.n)
        elif self._show and now - self._last > PLAIN_EVERY:
            self._last = now
            share = f" of {self._total} ({100 * step / self._total:.0f} %)" if self._total else ""
            left = (now - self._start) / max(step - self._first, 1) * (self._total - step)
            rest = f", {left:.0f} s left" if self._total else ""
            self.line(f"{self._unit} {step}{share}, {self._rate(step, now)}{rest}{self._noted()}")

    def _noted(self) -> str:
        return f", {self.note}" if self.note else ""

    def _rate(self, step: int, now: float) -> str:
        amount, unit = self._work
        return f"{si((step - self._first) * amount / max(now - self._start, 1e-9))}{unit}/s"

    def line(self, text: str) -> None:
        """Print a line between two updates."""
        if not self._show:
            return
        if self._bar is not None:
            self._bar.write(f"{self._label}: {text}", file=sys.stderr)
        else:
            print(f"{self._label}: {text}", file=sys.stderr, flush=True)

    def close(self, step: int) -> None:
        """End the display."""
        if self._bar is not None:
            self._bar.set_postfix_str(self._rate(step, time.monotonic()) + self._noted(), refresh=False)
            self._bar.update(step - self._bar.n)
            self._bar.close()
