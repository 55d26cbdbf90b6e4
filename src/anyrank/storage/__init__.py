"""Files on disk: durable files, and the checkpoints of a State."""
