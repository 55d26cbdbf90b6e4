"""Outputs of a run beside its checkpoints, with the same bytes on any ranks and after any restarts."""
