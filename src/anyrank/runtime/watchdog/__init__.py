"""The watchdog: if a run makes no step for too long, it reports the stack of every rank and ends the run."""

from anyrank.runtime.watchdog.watchdog import STEP_FILE, Watchdog, make_step_file, position

__all__ = ["STEP_FILE", "Watchdog", "make_step_file", "position"]
