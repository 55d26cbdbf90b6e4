"""The watchdog: a run that makes no step for too long says where every rank is, and ends."""

from anyrank.run.watchdog.watchdog import Watchdog, position

__all__ = ["Watchdog", "position"]
