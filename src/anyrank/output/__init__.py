"""Outputs of a run: series, whose bytes depend neither on the ranks nor on restarts, and pictures."""
