"""Outputs of a run: series and frames, with the same bytes on any ranks and after any restarts, and pictures."""
