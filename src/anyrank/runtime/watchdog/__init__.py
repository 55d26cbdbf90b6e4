"""The watchdog: a run that makes no step for too long says where every rank is, and ends."""

from anyrank.runtime.watchdog.watchdog import STEP_FILE, Watchdog, make_step_file, position

__all__ = ["STEP_FILE", "Watchdog", "make_step_file", "position"]
