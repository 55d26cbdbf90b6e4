"""Outputs of a run: time series, whose bytes depend neither on the ranks nor on restarts."""
