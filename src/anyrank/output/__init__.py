"""What a run writes besides checkpoints, and pictures of it."""
